"""What a report says of one caption set, and how it explains it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synth2_lightning.concepts.mined import find_nouns
from synth2_lightning.concepts.wordnet import WordNet, read_wordnet
from synth2_lightning.metrics.balance import Balance, measure_balance
from synth2_lightning.metrics.diversity import WordFigures, measure_self_bleu, measure_words
from synth2_lightning.metrics.duplicates import find_near_duplicates
from synth2_lightning.reports.caption_set import CaptionSet
from synth2_lightning.types import CLASS_NAME_SEPARATOR


@dataclass(frozen=True, slots=True, eq=False)
class SetFigures:
    """What is counted in one set, without a look at others.

    Args:
        words: Of the sample.
        self_bleu: Of the sample, from 0 to 1.
        near_duplicates: Share of the sample with a near duplicate in it.
        evaluation_overlap: Share of the sample with a near duplicate in the evaluation set, if one was given.
        classes: Captions of every class in the whole set, largest first; empty where nobody named classes.
        class_branches: Captions of every branch by class name in the whole set; empty without classes.
        noun_branches: Nouns of every branch in the captions of the sample, whether classes were named or
            not, so that sets compare.
    """

    words: WordFigures
    self_bleu: float
    near_duplicates: float
    evaluation_overlap: float | None
    classes: dict[str, int]
    class_branches: dict[str, int]
    noun_branches: dict[str, int]

    @property
    def class_balance(self) -> Balance | None:
        """How evenly captions are spread over the classes that occur."""
        return measure_balance(self.classes.values()) if self.classes else None


def measure_set(captions: CaptionSet, sample: Sequence[str], evaluation: Sequence[str], seed: int) -> SetFigures:
    """Count what can be counted in one set.

    Args:
        captions: The set.
        sample: Captions of it; of all sets that are compared, equally many.
        evaluation: Captions that should not be in the set; empty if there are none.
        seed: Decides the samples of self-BLEU.

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
    for names, count in captions.census.class_sizes.items():
        for name in names.split(CLASS_NAME_SEPARATOR):
            classes[name] += count if name.strip() else 0
    classes = +classes
    wordnet = read_wordnet()
    nouns = Counter(noun for caption in sample for noun in find_nouns(caption, wordnet))
    return SetFigures(
        words=measure_words(sample),
        self_bleu=measure_self_bleu(sample, seed=seed),
        near_duplicates=_share(find_near_duplicates(sample)),
        evaluation_overlap=_share(find_near_duplicates(sample, among=evaluation)) if evaluation else None,
        classes=dict(classes.most_common()),
        class_branches=_count_branches(classes, wordnet),
        noun_branches=_count_branches(nouns, wordnet),
    )


def _share(answers: Sequence[bool]) -> float:
    return sum(answers) / len(answers)


def _count_branches(classes: Mapping[str, int], wordnet: WordNet) -> dict[str, int]:
    branches: Counter[str] = Counter()
    for name, count in classes.items():
        if (synset := wordnet.find(name)) is not None:
            branches[wordnet.branch(synset)] += count
    return dict(branches.most_common())
