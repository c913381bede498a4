from dataclasses import replace

import pytest

from synth2_lightning.filters.sentences import SentenceTrimmer
from synth2_lightning.types import CaptionRecord, Verdict


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("A dog runs.", "A dog runs."),
        ("A dog runs", "A dog runs"),
        ("A dog. A cat. A cow.", "A dog. A cat."),
        ("A dog. A cat. A co", "A dog. A cat."),
        ("A dog. A ca", "A dog."),
        ('A sign says "Stop." A car waits.', 'A sign says "Stop." A car waits.'),
        ("Dr. Smith and Mrs. Jones at St. Paul. Rain falls. Sun.", "Dr. Smith and Mrs. Jones at St. Paul. Rain falls."),
        ("A player of the U. Miami team. He runs.", "A player of the U. Miami team. He runs."),
        ("A tower 3.5 metres high. it stands.", "A tower 3.5 metres high. it stands."),
        (" A dog runs! ", "A dog runs!"),
    ],
)
def test_the_first_whole_sentences_are_kept(text: str, caption: str) -> None:
    verdict = SentenceTrimmer().judge_one(CaptionRecord("a", text))
    assert (verdict.caption, verdict.reason) == (caption, "")


@pytest.mark.parametrize(
    "text", ["A dog runs across the", "Two men,", "A dog with its", "A man and", "A cat. A dog and"]
)
def test_a_caption_that_breaks_off_is_rejected_unless_a_sentence_came_before(text: str) -> None:
    reason = SentenceTrimmer().judge_one(CaptionRecord("a", text)).reason
    assert reason == ("" if text.startswith("A cat.") else "breaks off")


def test_the_number_of_sentences_is_an_argument() -> None:
    trimmer = SentenceTrimmer(max_sentences=1)
    assert trimmer.judge_one(CaptionRecord("a", "A dog. A cat.")).caption == "A dog."
    assert trimmer.provenance() == {"max_sentences": 1}
    with pytest.raises(ValueError, match=r"SentenceTrimmer.*max_sentences=0"):
        SentenceTrimmer(max_sentences=0)


def test_what_was_cut_breaks_off_unless_a_sentence_ended_before() -> None:
    cut = CaptionRecord("a", "A dog runs across the green lawn", is_complete=False)
    assert SentenceTrimmer().judge_one(cut).reason == "breaks off"
    assert SentenceTrimmer().judge_one(replace(cut, is_complete=True)).reason == ""
    assert SentenceTrimmer().judge_one(replace(cut, caption="A dog runs. It is gre")) == Verdict("A dog runs.")
    assert SentenceTrimmer().judge_one(replace(cut, caption="A dog runs.")).reason == ""
