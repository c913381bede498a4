"""Captions that say in the same or nearly the same words what an earlier caption says."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from synth2_lightning.filters.words import join_ngrams, measure_jaccard, split_words
from synth2_lightning.interfaces import CaptionFilter, Judge
from synth2_lightning.types import CaptionRecord, Verdict

REASON_NEAR = "says nearly the same as an earlier one"
Runs = frozenset[tuple[str, ...]]


class ExactDuplicates(CaptionFilter):
    """Keeps the first of all captions that have the same words, whatever their case, accents and punctuation.

    Example:
        >>> records = [CaptionRecord(str(number), text) for number, text in enumerate(["A dog.", "a dog", "Dogs."])]
        >>> [verdict.reason for verdict in ExactDuplicates().judge(records)]
        ['', 'says the same as an earlier one', '']
    """

    def start(self) -> Judge:
        """Return a function that compares each caption with all before it, of which it keeps 16 bytes each."""
        seen: set[bytes] = set()

        def judge_one(record: CaptionRecord) -> Verdict:
            words = blake2b("\0".join(split_words(record.caption)).encode(), digest_size=16).digest()
            verdict = Verdict(record.caption, "says the same as an earlier one" if words in seen else "")
            seen.add(words)
            return verdict

        return lambda records: list(map(judge_one, records))

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

    def start(self) -> Judge:
        """Return a function that compares every caption with the likely ones among those kept before it."""
        are_rejected = self._start()

        def judge(records: Sequence[CaptionRecord]) -> list[Verdict]:
            captions = [record.caption for record in records]
            pairs = zip(captions, are_rejected(captions), strict=True)
            return [Verdict(caption, REASON_NEAR if is_rejected else "") for caption, is_rejected in pairs]

        return judge

    def find_rejected(self, captions: Sequence[str]) -> list[int]:
        """Give the places of those captions that go, ascending.

        Example:
            >>> NearDuplicates().find_rejected(["A red dog.", "A cat sleeps.", "a red dog"])
            [2]
        """
        return [index for index, is_rejected in enumerate(self._start()(captions)) if is_rejected]

    def _start(self) -> Callable[[Sequence[str]], list[bool]]:
        kept: list[str] = []
        members: dict[int, list[int]] = {}

        def are_rejected(captions: Sequence[str]) -> list[bool]:
            runs = [self.list_runs(caption) for caption in captions]
            verdicts = []
            for caption, own, buckets in zip(captions, runs, self.find_buckets(runs), strict=True):
                likely = {other for bucket in buckets for other in members.get(bucket, ())}
                verdicts.append(any(self.are_near(own, self.list_runs(kept[other])) for other in likely))
                if not verdicts[-1]:
                    for bucket in buckets:
                        members.setdefault(bucket, []).append(len(kept))
                    kept.append(caption)
            return verdicts

        return are_rejected

    def list_runs(self, caption: str) -> Runs:
        """Give the runs of words that a caption is compared by.

        Example:
            >>> sorted(NearDuplicates().list_runs("A red dog."))
            [('a', 'red'), ('red', 'dog')]
        """
        return frozenset(join_ngrams(split_words(caption), self.ngram_size))

    def find_buckets(self, runs: Iterable[Runs]) -> Iterator[list[int]]:
        """Give the buckets that each caption is in; those that are near have one in common, hardly ever none.

        Example:
            >>> near = NearDuplicates()
            >>> one, other = near.find_buckets([near.list_runs("A red dog."), near.list_runs("a red dog")])
            >>> one == other
            True
        """
        from datasketch import MinHash, MinHashLSH

        hashed = ([" ".join(run).encode() for run in each] for each in runs)
        bands = MinHashLSH(threshold=self.threshold, num_perm=self.num_permutations, weights=(0.2, 0.8)).hashranges
        for sketch in MinHash.generator(hashed, num_perm=self.num_permutations, seed=self.seed):
            values = np.asarray(sketch.hashvalues, np.uint64)
            yield [_number(band, values[start:end].tobytes()) for band, (start, end) in enumerate(bands)]

    def are_near(self, one: Runs, other: Runs) -> bool:
        """Whether two captions share so many of their runs.

        Example:
            >>> near = NearDuplicates()
            >>> near.are_near(near.list_runs("A red dog."), near.list_runs("a red dog"))
            True
        """
        return measure_jaccard(one, other) >= self.threshold

    def provenance(self) -> dict[str, Any]:
        """Give the numbers."""
        return {
            "threshold": self.threshold,
            "ngram_size": self.ngram_size,
            "num_permutations": self.num_permutations,
            "seed": self.seed,
        }


def _number(band: int, values: bytes) -> int:
    """Name a bucket by 64 bits; two that get the same one only have a few more captions to compare."""
    return int.from_bytes(blake2b(values, digest_size=8, salt=band.to_bytes(4, "big")).digest(), "big", signed=True)
