import pytest

from synth2_lightning.filters.refusals import RefusalFilter
from synth2_lightning.types import CaptionRecord


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("", "without a word"),
        (" ... ", "without a word"),
        ("WRONG!", "refuses by the marker"),
        ('"Wrong" - this is no object.', "refuses by the marker"),
        ("I'm sorry, but this cannot be shown.", "refuses in words"),
        ("I’m sorry.", "refuses in words"),  # noqa: RUF001
        ("Sorry, no.", "refuses in words"),
        ("I cannot describe this.", "refuses in words"),
        ("I can't do that.", "refuses in words"),
        ("As an AI, I have no eyes.", "refuses in words"),
        ("A language model does not see.", "refuses in words"),
        ("Please provide the word.", "refuses in words"),
        ("It is not appropriate to describe this.", "refuses in words"),
        ("Unable to create a caption.", "refuses in words"),
        ("A dog runs on the wrong side of the road.", ""),
        ("Wrongly parked cars.", ""),
        ("A model in a red dress walks.", ""),
        ("A sorry dog sits in the rain.", ""),
    ],
)
def test_refusals_are_distinguished_from_captions(caption: str, reason: str) -> None:
    verdict = RefusalFilter().judge_one(CaptionRecord("a", caption))
    assert (verdict.caption, verdict.reason) == (caption, reason)


def test_the_marker_is_the_prompts() -> None:
    refusals = RefusalFilter(marker="NO IMAGE!")
    assert refusals.judge_one(CaptionRecord("a", "no image!")).reason == "refuses by the marker"
    assert refusals.judge_one(CaptionRecord("a", "WRONG!")).reason == ""
    assert refusals.provenance() == {"marker": "NO IMAGE!"}


def test_a_marker_without_a_letter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"RefusalFilter.*marker='!'"):
        RefusalFilter(marker="!")
