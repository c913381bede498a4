"""Captions that are too short or too long."""

from typing import Any

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.types import CaptionRecord, Verdict


class LengthFilter(RecordFilter):
    """Rejects captions of too few or too many words.

    Args:
        min_words: Fewest words, from 1. Three say no more than what is there and something of it.
        max_words: Most words; the paper's captions have some 40.

    Raises:
        ValueError: If the numbers are out of range.

    Example:
        >>> LengthFilter(max_words=4).judge_one(CaptionRecord("a", "a dog in the snow")).reason
        'more than 4 words'
    """

    def __init__(self, min_words: int = 3, max_words: int = 60) -> None:
        if not 1 <= min_words <= max_words:
            raise ValueError(
                f"LengthFilter got min_words={min_words} and max_words={max_words}; expected 1 or more words, and no "
                "fewer at most than at least."
            )
        self.min_words = min_words
        self.max_words = max_words

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Count what stands between spaces and holds a letter or digit."""
        num_words = sum(any(map(str.isalnum, word)) for word in record.caption.split())
        if num_words < self.min_words:
            return Verdict(record.caption, f"fewer than {self.min_words} words")
        if num_words > self.max_words:
            return Verdict(record.caption, f"more than {self.max_words} words")
        return Verdict(record.caption)

    def provenance(self) -> dict[str, Any]:
        """Give the numbers."""
        return {"min_words": self.min_words, "max_words": self.max_words}
