"""Captions that go round in circles."""

from collections import Counter
from typing import Any

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.filters.words import join_ngrams, split_words
from synth2_lightning.types import CaptionRecord, Verdict

_MAX_STUTTER = 4


class RepetitionFilter(RecordFilter):
    """Rejects captions that say the same words over and over, as small language models do.

    Of captions that people wrote it rejects few, most of them like "a man in a black jacket and a man in a red jacket".

    Args:
        ngram_size: A run of so many words may come once only, from 2.
        min_distinct: Least share of distinct words among all, from 0 to 1. Long captions repeat their small words and
            come to 0.7.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> RepetitionFilter().judge_one(CaptionRecord("a", "A very very very old oak.")).reason
        'stutters'
    """

    def __init__(self, ngram_size: int = 4, min_distinct: float = 0.6) -> None:
        if ngram_size < 2 or not 0 <= min_distinct <= 1:
            raise ValueError(
                f"RepetitionFilter got ngram_size={ngram_size} and min_distinct={min_distinct}; expected a size of 2 "
                "or more and a share from 0 to 1."
            )
        self.ngram_size = ngram_size
        self.min_distinct = min_distinct

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Look for repeats next to each other, then anywhere."""
        words = split_words(record.caption)
        if _stutters(words):
            return Verdict(record.caption, "stutters")
        if max(Counter(join_ngrams(words, self.ngram_size)).values()) > 1:
            return Verdict(record.caption, f"repeats {self.ngram_size} words")
        if len(set(words)) < self.min_distinct * len(words):
            return Verdict(record.caption, "has few distinct words")
        return Verdict(record.caption)

    def provenance(self) -> dict[str, Any]:
        """Give the numbers."""
        return {"ngram_size": self.ngram_size, "min_distinct": self.min_distinct}


def _stutters(words: list[str]) -> bool:
    return any(
        words[start : start + size] == words[start + size : start + 2 * size]
        for size in range(1, _MAX_STUTTER + 1)
        for start in range(len(words) - 2 * size + 1)
    )
