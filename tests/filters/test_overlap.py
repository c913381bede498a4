from pathlib import Path

import pytest

from synth2_lightning.filters.duplicates import NearDuplicates
from synth2_lightning.filters.overlap import EvaluationOverlap, TrainingOverlap
from synth2_lightning.sources.caption_table import CaptionTable
from synth2_lightning.types import CaptionRecord, Verdict


@pytest.fixture
def evaluation(tmp_path: Path) -> CaptionTable:
    table = tmp_path / "test.csv"
    table.write_text("caption\nA brown dog runs over the green grass.\nA dog.\n", encoding="utf-8")
    return CaptionTable(str(table), name="test")


def is_rejected(verdicts: list[Verdict]) -> list[bool]:
    return [bool(verdict.reason) for verdict in verdicts]


def test_runs_in_common_and_equal_short_captions_are_found(evaluation: CaptionTable) -> None:
    captions = (
        *("See: a BROWN dog runs, over a wall.", "A brown dog leaps over the green grass.", "a dog", "A dog sleeps."),
        *("the green grass", ""),
    )
    judge = EvaluationOverlap(evaluation, ngram_size=4)
    verdicts = judge.judge([CaptionRecord(str(number), caption) for number, caption in enumerate(captions)])
    assert is_rejected(verdicts) == [True, True, True, False, False, False]
    assert verdicts[0].reason == "shares 4 words with test"
    assert judge.provenance() == {"captions": "test", "num_captions": 2, "fingerprint": "a44304e7694e", "ngram_size": 4}


def test_runs_of_one_word_are_refused(evaluation: CaptionTable) -> None:
    with pytest.raises(ValueError, match=r"EvaluationOverlap.*ngram_size=1"):
        EvaluationOverlap(evaluation, ngram_size=1)


def test_nothing_is_read_before_it_is_needed() -> None:
    nowhere = CaptionTable("/nowhere/test.csv")
    judge = EvaluationOverlap(nowhere)
    with pytest.raises(FileNotFoundError, match=r"'synthetic'.*'/nowhere/test\.csv'"):
        judge.judge([CaptionRecord("a", "a dog")])


def test_copies_and_near_copies_of_training_captions_are_found(evaluation: CaptionTable) -> None:
    captions = (
        "a dog",
        "See: a brown dog runs over the green grass.",
        "A cat sleeps on the green grass.",
        "a",
        "a dog",
    )
    records = [CaptionRecord(str(number), caption) for number, caption in enumerate(captions)]
    judge = TrainingOverlap(evaluation)
    repeated, near = "repeats a caption of test", "nearly repeats a caption of test"
    assert [verdict.reason for verdict in judge.judge(records)] == [repeated, near, "", "", repeated]
    strict = TrainingOverlap(evaluation, NearDuplicates(threshold=0.95))
    assert [verdict.reason for verdict in strict.judge(records)] == [repeated, "", "", "", repeated]
    assert strict.provenance() == {
        "captions": "test",
        "num_captions": 2,
        "fingerprint": "a44304e7694e",
        "threshold": 0.95,
        "ngram_size": 2,
        "num_permutations": 128,
        "seed": 1,
    }
