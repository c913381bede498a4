"""Statistics of a single caption set."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from synth2_lightning.concepts.mined import find_nouns
from synth2_lightning.concepts.wordnet import WordNet, read_wordnet
from synth2_lightning.filters.duplicates import find_buckets
from synth2_lightning.filters.words import measure_jaccard
from synth2_lightning.metrics.balance import Balance, measure_balance
from synth2_lightning.metrics.diversity import WordStatistics, measure_self_bleu, measure_words, split_caption
from synth2_lightning.reports.caption_set import CaptionSet
from synth2_lightning.types import CLASS_NAME_SEPARATOR

_THRESHOLD = 0.8
_NUM_PERMUTATIONS, _ROWS = 125, 5  # misses one in 20,000 pairs at the threshold


@dataclass(frozen=True, slots=True, eq=False)
class SetStatistics:
    """Statistics of a single caption set.

    Args:
        words: Word statistics of the sample.
        self_bleu: Self-BLEU of the sample, in [0, 1].
        near_duplicates: Fraction of the sample that has a near duplicate in the sample.
        evaluation_overlap: Fraction of the sample that has a near duplicate in the evaluation set, if there is one.
        classes: Number of captions per class in the complete set, largest first; empty if classes are unknown.
        class_branches: Number of captions per WordNet branch of their class, in the complete set.
        noun_branches: Number of nouns per WordNet branch in the captions of the sample; comparable between sets
            with and without classes.
    """

    words: WordStatistics
    self_bleu: float
    near_duplicates: float
    evaluation_overlap: float | None
    classes: dict[str, int]
    class_branches: dict[str, int]
    noun_branches: dict[str, int]

    @property
    def class_balance(self) -> Balance | None:
        """Balance over the classes that occur; ``None`` without classes."""
        return measure_balance(self.classes.values()) if self.classes else None


def measure_set(captions: CaptionSet, sample: Sequence[str], evaluation: Sequence[str], seed: int) -> SetStatistics:
    """Return the statistics of a caption set.

    Args:
        captions: The set.
        sample: Sampled captions, equally many for all compared sets.
        evaluation: Captions to measure overlap with; may be empty.
        seed: Seed of the samples of self-BLEU.

    Example:
        >>> import pyarrow as pa
        >>> from pathlib import Path
        >>> from synth2_lightning.reports.caption_set import count_captions
        >>> from synth2_lightning.reports.partitions import TablePartition
        >>> rows = pa.table({"caption": ["a fox runs", "a dog runs"], "class_name": ["fox", "dog"]})
        >>> captions = count_captions("animals", Path(), [TablePartition(rows)])
        >>> measure_set(captions, captions.captions, [], seed=0).class_branches
        {'animal': 2}
    """
    classes: Counter[str] = Counter()
    for names, count in captions.counts.class_sizes.items():
        for name in names.split(CLASS_NAME_SEPARATOR):
            classes[name] += count if name.strip() else 0
    classes = +classes
    wordnet = read_wordnet()
    nouns = Counter(noun for caption in sample for noun in find_nouns(caption, wordnet))
    return SetStatistics(
        words=measure_words(sample),
        self_bleu=measure_self_bleu(sample, seed=seed),
        near_duplicates=_fraction(find_near_duplicates(sample)),
        evaluation_overlap=_fraction(find_near_duplicates(sample, among=evaluation)) if evaluation else None,
        classes=dict(classes.most_common()),
        class_branches=_count_branches(classes, wordnet),
        noun_branches=_count_branches(nouns, wordnet),
    )


def find_near_duplicates(captions: Sequence[str], among: Sequence[str] | None = None) -> list[bool]:
    """Return for each caption whether it has a near duplicate.

    Near duplicates have word sets, ignoring case and punctuation, with a Jaccard similarity of at least 0.8. Candidates
    are found by MinHash and compared exactly, so there are no false positives.

    Args:
        captions: The captions to test.
        among: Captions to compare with, such as those of an evaluation set. By default, the other ``captions``.

    Example:
        >>> find_near_duplicates(["a dog runs", "A dog runs.", "two cats"])
        [True, True, False]
        >>> find_near_duplicates(["a dog runs", "a fox"], among=["A dog runs!"])
        [True, False]
    """
    texts = [frozenset(split_caption(caption)) for caption in captions]
    pool = Counter(texts if among is None else (frozenset(split_caption(caption)) for caption in among))
    fewest = 2 if among is None else 1  # a caption is not a duplicate of itself
    members = defaultdict(list)
    for text, buckets in _find_buckets(pool):
        for bucket in buckets:
            members[bucket].append(text)
    found = {
        text: pool[text] >= fewest
        or any(
            measure_jaccard(text, other) >= _THRESHOLD
            for other in {other for bucket in buckets for other in members.get(bucket, ())} - {text}
        )
        for text, buckets in _find_buckets(set(texts))
    }
    return [found[text] for text in texts]


def _find_buckets(texts: Collection[frozenset[str]]) -> Iterator[tuple[frozenset[str], list[int]]]:
    bands = [(start, start + _ROWS) for start in range(0, _NUM_PERMUTATIONS, _ROWS)]
    return zip(texts, find_buckets(texts, _NUM_PERMUTATIONS, bands), strict=True)


def _fraction(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def _count_branches(classes: Mapping[str, int], wordnet: WordNet) -> dict[str, int]:
    branches: Counter[str] = Counter()
    for name, count in classes.items():
        if (synset := wordnet.find(name)) is not None:
            branches[wordnet.branch(synset)] += count
    return dict(branches.most_common())
