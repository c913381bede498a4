"""Captions that say in the same or nearly the same words what an earlier caption says."""

from collections.abc import Sequence
from typing import Any

from synth2_lightning.filters.words import join_ngrams, measure_jaccard, split_words
from synth2_lightning.interfaces import CaptionFilter
from synth2_lightning.types import CaptionRecord, Verdict


class ExactDuplicates(CaptionFilter):
    """Keeps the first of all captions that have the same words, whatever their case, accents and punctuation.

    Example:
        >>> records = [CaptionRecord(str(number), text) for number, text in enumerate(["A dog.", "a dog", "Dogs."])]
        >>> [verdict.reason for verdict in ExactDuplicates().judge(records)]
        ['', 'says the same as an earlier one', '']
    """

    def judge(self, records: Sequence[CaptionRecord]) -> list[Verdict]:
        """Compare all captions."""
        seen: set[tuple[str, ...]] = set()
        verdicts = []
        for record in records:
            words = tuple(split_words(record.caption))
            verdicts.append(Verdict(record.caption, "says the same as an earlier one" if words in seen else ""))
            seen.add(words)
        return verdicts

    def provenance(self) -> dict[str, Any]:
        """Give no argument, for there is none."""
        return {}


class NearDuplicates(CaptionFilter):
    """Keeps the first of captions that share most of their runs of words.

    Candidates are found by MinHash and locality-sensitive hashing, then measured, so that no caption is rejected by
    chance; a pair just above the threshold may be missed. Captions are compared with those that were kept: a chain of
    small changes does not take all of itself along.

    Args:
        threshold: Least share of common runs among all runs of two captions (Jaccard), above 0 and below 1. At 0.7, ten
            words may differ in one at an end, thirty words in two.
        ngram_size: Words of a run, from 1.
        num_permutations: Of MinHash; more find more of the pairs near the threshold, and take longer.
        seed: Of the permutations.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> texts = ("A brown dog runs over the green grass.", "A brown dog runs over the green lawn.", "A cat sleeps.")
        >>> records = [CaptionRecord(str(number), text) for number, text in enumerate(texts)]
        >>> [verdict.reason for verdict in NearDuplicates().judge(records)]
        ['', 'says nearly the same as an earlier one', '']
    """

    def __init__(self, threshold: float = 0.7, ngram_size: int = 2, num_permutations: int = 128, seed: int = 1) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"NearDuplicates got threshold={threshold}; expected a share above 0 and below 1.")
        if ngram_size < 1 or num_permutations < 2:
            raise ValueError(
                f"NearDuplicates got ngram_size={ngram_size} and num_permutations={num_permutations}; expected runs of "
                "1 or more words and 2 or more permutations."
            )
        self.threshold = threshold
        self.ngram_size = ngram_size
        self.num_permutations = num_permutations
        self.seed = seed

    def judge(self, records: Sequence[CaptionRecord]) -> list[Verdict]:
        """Compare every caption with the likely ones among those kept before it."""
        from datasketch import MinHash, MinHashLSH

        runs = [set(join_ngrams(split_words(record.caption), self.ngram_size)) for record in records]
        hashed = ([" ".join(run).encode() for run in each] for each in runs)
        sketches = MinHash.generator(hashed, num_perm=self.num_permutations, seed=self.seed)
        kept = MinHashLSH(threshold=self.threshold, num_perm=self.num_permutations, weights=(0.2, 0.8))
        verdicts = []
        for index, (record, sketch) in enumerate(zip(records, sketches, strict=True)):
            near = any(measure_jaccard(runs[index], runs[other]) >= self.threshold for other in kept.query(sketch))
            if not near:
                kept.insert(index, sketch)
            verdicts.append(Verdict(record.caption, "says nearly the same as an earlier one" if near else ""))
        return verdicts

    def provenance(self) -> dict[str, Any]:
        """Give the numbers."""
        return {
            "threshold": self.threshold,
            "ngram_size": self.ngram_size,
            "num_permutations": self.num_permutations,
            "seed": self.seed,
        }
