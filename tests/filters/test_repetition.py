import pytest

from synth2_lightning.filters.repetition import RepetitionFilter
from synth2_lightning.types import CaptionRecord


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("A very very old oak.", "stutters"),
        ("A man on a horse on a horse.", "stutters"),
        ("A man in a red hat waits beside a man in a red coat.", "repeats 4 words"),
        ("A cat, the cat: a cat and the cat by a cat.", "has few distinct words"),
        ("A black dog runs after a white dog in the snow.", ""),
        ("", ""),
    ],
)
def test_repeats_are_rejected(caption: str, reason: str) -> None:
    assert RepetitionFilter().judge_one(CaptionRecord("a", caption)).reason == reason


def test_the_numbers_are_arguments() -> None:
    judge = RepetitionFilter(ngram_size=2, min_distinct=0.0)
    assert judge.judge_one(CaptionRecord("a", "A dog sees a dog.")).reason == "repeats 2 words"
    assert judge.provenance() == {"ngram_size": 2, "min_distinct": 0}


@pytest.mark.parametrize("numbers", [(1, 0.5), (4, 1.5)])
def test_numbers_out_of_range_are_refused(numbers: tuple[int, float]) -> None:
    message = rf"RepetitionFilter.*ngram_size={numbers[0]}.*min_distinct={numbers[1]}"
    with pytest.raises(ValueError, match=message):
        RepetitionFilter(*numbers)
