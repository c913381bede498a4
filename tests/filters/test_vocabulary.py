from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram

from synth2_lightning.filters.vocabulary import VocabularyFilter
from synth2_lightning.types import CaptionRecord, Verdict

SCENES = "package://synth2_lightning/scenes/vocabulary"


def test_every_word_must_be_known() -> None:
    known = "A small red circle above a large green star"
    assert VocabularyFilter(SCENES).judge_one(CaptionRecord("a", known)) == Verdict(known)
    unknown = "a small crimson circle."
    verdict = VocabularyFilter(SCENES).judge_one(CaptionRecord("a", unknown))
    assert verdict.reason == "has an unknown word"


def test_signs_that_are_unknown_are_taken_out() -> None:
    record = CaptionRecord("a", "There is a small, red circle - and a star.")
    assert VocabularyFilter(SCENES).judge_one(record) == Verdict("There is a small red circle and a star")


def test_a_missing_tokenizer_and_one_without_unknown_words_are_refused(tmp_path: Path) -> None:
    record = CaptionRecord("a", "a circle")
    with pytest.raises(FileNotFoundError, match=r"tokenizer"):
        VocabularyFilter(str(tmp_path / "nowhere")).judge_one(record)
    Tokenizer(BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"every word.*VocabularyFilter"):
        VocabularyFilter(str(tmp_path)).judge_one(record)
    Tokenizer(Unigram([("a", 0.0)])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"every word.*VocabularyFilter"):
        VocabularyFilter(str(tmp_path)).judge_one(record)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json is damaged"):
        VocabularyFilter(str(tmp_path)).judge_one(record)


def test_provenance_names_the_tokenizer() -> None:
    assert VocabularyFilter(SCENES).provenance() == {"tokenizer": SCENES, "fingerprint": "9a1862011f48"}
