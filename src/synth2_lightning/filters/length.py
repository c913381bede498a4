"""Filter of captions by number of words."""

from dataclasses import dataclass

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.types import CaptionRecord, Verdict


@dataclass(frozen=True)
class LengthFilter(RecordFilter):
    """Rejects captions with too few or too many words.

    Args:
        min_words: Minimum number of words, from 1. Three words suffice for an object and one attribute.
        max_words: Maximum number of words.

    Raises:
        ValueError: If the bounds are out of range.

    Example:
        >>> LengthFilter(max_words=4).judge_one(CaptionRecord("a", "a dog in the snow")).reason
        'more than 4 words'
    """

    min_words: int = 3
    max_words: int = 60

    def __post_init__(self) -> None:
        if not 1 <= self.min_words <= self.max_words:
            raise ValueError(
                f"{self} is out of range; expected min_words of 1 or more, and max_words of min_words or more."
            )

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Return the verdict on one caption; words are separated by spaces and contain a letter or digit."""
        num_words = sum(any(map(str.isalnum, word)) for word in record.caption.split())
        if num_words < self.min_words:
            return Verdict(record.caption, f"fewer than {self.min_words} words")
        if num_words > self.max_words:
            return Verdict(record.caption, f"more than {self.max_words} words")
        return Verdict(record.caption)
