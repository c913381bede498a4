"""Filters of exact and near-duplicate captions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from synth2_lightning.filters.words import join_ngrams, measure_jaccard, split_words
from synth2_lightning.interfaces import CaptionFilter, Judge
from synth2_lightning.io.extras import require_extra
from synth2_lightning.types import CaptionRecord, Verdict

REASON_NEAR = "nearly repeats an earlier one"
Ngrams = frozenset[tuple[str, ...]]


@dataclass(frozen=True)
class ExactDuplicates(CaptionFilter):
    """Keeps the first of captions with the same words, ignoring case, accents and punctuation.

    Example:
        >>> records = [CaptionRecord(str(number), text) for number, text in enumerate(["A dog.", "a dog", "Dogs."])]
        >>> [verdict.reason for verdict in ExactDuplicates().judge(records)]
        ['', 'repeats an earlier one', '']
    """

    def start(self) -> Judge:
        """Return a judge that stores a hash of 16 bytes per caption."""
        seen: set[bytes] = set()

        def judge_one(record: CaptionRecord) -> Verdict:
            words = blake2b("\0".join(split_words(record.caption)).encode(), digest_size=16).digest()
            verdict = Verdict(record.caption, "repeats an earlier one" if words in seen else "")
            seen.add(words)
            return verdict

        return lambda records: list(map(judge_one, records))


@dataclass(frozen=True)
class NearDuplicates(CaptionFilter):
    """Keeps the first of captions with a high Jaccard similarity of their word n-grams.

    MinHash and locality-sensitive hashing find candidates, whose similarity is then computed exactly: there are no
    false positives, but pairs just above the threshold may be missed. Captions are compared with kept captions only.

    Args:
        threshold: Minimum Jaccard similarity of duplicates, above 0 and below 1. At 0.7, captions of ten words may
            differ in one word at an end, captions of thirty words in two.
        ngram_size: Words per n-gram, from 1.
        num_permutations: Permutations of MinHash; more find more pairs near the threshold, and take longer.
        seed: Seed of the permutations.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> texts = ("A brown dog runs over the green grass.", "A brown dog runs over the green lawn.", "A cat sleeps.")
        >>> records = [CaptionRecord(str(number), text) for number, text in enumerate(texts)]
        >>> [verdict.reason for verdict in NearDuplicates().judge(records)]
        ['', 'nearly repeats an earlier one', '']
    """

    threshold: float = 0.7
    ngram_size: int = 2
    num_permutations: int = 128
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1 or self.ngram_size < 1 or self.num_permutations < 2:
            raise ValueError(
                f"{self} is out of range; expected threshold above 0 and below 1, ngram_size of 1 or more, and "
                "num_permutations of 2 or more."
            )

    def start(self) -> Judge:
        """Return a judge that compares every caption with candidates among the captions kept before."""
        are_rejected = self._start()

        def judge(records: Sequence[CaptionRecord]) -> list[Verdict]:
            captions = [record.caption for record in records]
            pairs = zip(captions, are_rejected(captions), strict=True)
            return [Verdict(caption, REASON_NEAR if is_rejected else "") for caption, is_rejected in pairs]

        return judge

    def find_rejected(self, captions: Sequence[str]) -> list[int]:
        """Return the ascending indices of rejected captions.

        Example:
            >>> NearDuplicates().find_rejected(["A red dog.", "A cat sleeps.", "a red dog"])
            [2]
        """
        return [index for index, is_rejected in enumerate(self._start()(captions)) if is_rejected]

    def _start(self) -> Callable[[Sequence[str]], list[bool]]:
        kept: list[str] = []
        members: dict[int, list[int]] = {}

        def are_rejected(captions: Sequence[str]) -> list[bool]:
            ngrams = [self.list_ngrams(caption) for caption in captions]
            verdicts = []
            for caption, own, buckets in zip(captions, ngrams, self.find_buckets(ngrams), strict=True):
                candidates = {other for bucket in buckets for other in members.get(bucket, ())}
                verdicts.append(any(self.are_near(own, self.list_ngrams(kept[other])) for other in candidates))
                if not verdicts[-1]:
                    for bucket in buckets:
                        members.setdefault(bucket, []).append(len(kept))
                    kept.append(caption)
            return verdicts

        return are_rejected

    def list_ngrams(self, caption: str) -> Ngrams:
        """Return the set of word n-grams of a caption."""
        return frozenset(join_ngrams(split_words(caption), self.ngram_size))

    def find_buckets(self, ngrams: Iterable[Ngrams]) -> Iterator[list[int]]:
        """Yield the buckets of each caption; near duplicates have one in common with high probability."""
        require_extra("datasketch", "captions")
        from datasketch import MinHashLSH

        try:
            index = MinHashLSH(threshold=self.threshold, num_perm=self.num_permutations, weights=(0.2, 0.8))
        except ValueError as error:
            raise ValueError(
                f"{self} has too few permutations for its threshold ({error}); expected more of them, or a lower one."
            ) from error
        joined = ([" ".join(ngram) for ngram in each] for each in ngrams)
        yield from find_buckets(joined, self.num_permutations, index.hashranges, self.seed)

    def are_near(self, one: Ngrams, other: Ngrams) -> bool:
        """Return whether the similarity of two n-gram sets reaches the threshold."""
        return measure_jaccard(one, other) >= self.threshold


def find_buckets(
    sets: Iterable[Iterable[str]], num_permutations: int, bands: Sequence[tuple[int, int]], seed: int = 1
) -> Iterator[list[int]]:
    """Yield the buckets of each set of strings, one per band; similar sets have one in common with high probability.

    Args:
        sets: Sets of strings.
        num_permutations: Permutations of MinHash (A. Broder 1997).
        bands: First permutation of each band, and the one after its last.
        seed: Seed of the permutations.

    Example:
        >>> one, other = find_buckets([{"red", "dog"}, {"dog", "red"}], 4, [(0, 2), (2, 4)])
        >>> one == other, len(one)
        (True, 2)
    """
    require_extra("datasketch", "captions")
    from datasketch import MinHash

    encoded = ([text.encode() for text in each] for each in sets)
    for sketch in MinHash.generator(encoded, num_perm=num_permutations, seed=seed):
        values = np.asarray(sketch.hashvalues, np.uint64)
        yield [_hash_bucket(band, values[start:end].tobytes()) for band, (start, end) in enumerate(bands)]


def _hash_bucket(band: int, values: bytes) -> int:
    """Return a 64-bit bucket id; a collision only adds candidates."""
    return int.from_bytes(blake2b(values, digest_size=8, salt=band.to_bytes(4, "big")).digest(), "big", signed=True)
