import pytest

from synth2_lightning.filters.length import LengthFilter
from synth2_lightning.types import CaptionRecord


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("", "fewer than 3 words"),
        ("a dog", "fewer than 3 words"),
        ("a - dog .", "fewer than 3 words"),
        ("a dog runs", ""),
        ("a dog runs, it's well-fed", ""),
        ("one two three four five six", "more than 5 words"),
    ],
)
def test_words_are_counted(caption: str, reason: str) -> None:
    assert LengthFilter(max_words=5).judge_one(CaptionRecord("a", caption)).reason == reason


def test_provenance_has_the_numbers() -> None:
    assert LengthFilter(2, 4).provenance() == {"min_words": 2, "max_words": 4}


@pytest.mark.parametrize("bounds", [(0, 4), (5, 4)])
def test_numbers_out_of_range_are_refused(bounds: tuple[int, int]) -> None:
    message = f"LengthFilter.*min_words={bounds[0]}.*max_words={bounds[1]}"
    with pytest.raises(ValueError, match=message):
        LengthFilter(*bounds)
