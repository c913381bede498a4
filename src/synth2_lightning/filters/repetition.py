"""Filter of repetitive captions."""

from collections import Counter
from dataclasses import dataclass

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.filters.words import join_ngrams, split_words
from synth2_lightning.types import CaptionRecord, Verdict

_MAX_STUTTER = 4


@dataclass(frozen=True)
class RepetitionFilter(RecordFilter):
    """Rejects repetitive captions, which small language models generate.

    It rejects few human captions, mostly ones such as "a man in a black jacket and a man in a red jacket".

    Args:
        ngram_size: Size of word n-grams that must not be repeated, from 2.
        min_distinct: Minimum fraction of distinct words, in [0, 1]. Long captions repeat function words and reach 0.7.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> RepetitionFilter().judge_one(CaptionRecord("a", "A very very very old oak.")).reason
        'stutters'
    """

    ngram_size: int = 4
    min_distinct: float = 0.6

    def __post_init__(self) -> None:
        if self.ngram_size < 2 or not 0 <= self.min_distinct <= 1:
            raise ValueError(f"{self} is out of range; expected ngram_size of 2 or more and min_distinct from 0 to 1.")

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Return the verdict on one caption."""
        words = split_words(record.caption)
        if _stutters(words):
            return Verdict(record.caption, "stutters")
        if max(Counter(join_ngrams(words, self.ngram_size)).values()) > 1:
            return Verdict(record.caption, f"repeats {self.ngram_size} words")
        if len(set(words)) < self.min_distinct * len(words):
            return Verdict(record.caption, "has few distinct words")
        return Verdict(record.caption)


def _stutters(words: list[str]) -> bool:
    return any(
        words[start : start + size] == words[start + size : start + 2 * size]
        for size in range(1, _MAX_STUTTER + 1)
        for start in range(len(words) - 2 * size + 1)
    )
