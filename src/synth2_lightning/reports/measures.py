"""The rows of a report's table: what each figure is called, how it is written, and what it means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from synth2_lightning.metrics.balance import Balance
from synth2_lightning.reports.comparison import ComparedSet


@dataclass(frozen=True, slots=True)
class Measure:
    """A row of the table.

    Args:
        key: Its name in ``report.json``.
        label: Its name on the page.
        meaning: One line for the reader.
        form: How the number is written, as ``format`` takes it.
        read: Takes the number out of a set; ``None`` where the set has none.

    Example:
        >>> [measure.key for measure in MEASURES][:3]
        ['num_captions', 'mean_length', 'vocabulary_size']
    """

    key: str
    label: str
    meaning: str
    form: str
    read: Callable[[ComparedSet], int | float | None]

    def write(self, compared: ComparedSet) -> str:
        """Write the figure of a set; a dash where it has none."""
        value = self.read(compared)
        return "-" if value is None else format(value, self.form)


def _of_classes(read: Callable[[Balance], int | float]) -> Callable[[ComparedSet], int | float | None]:
    def read_balance(compared: ComparedSet) -> int | float | None:
        balance = compared.figures.class_balance
        return None if balance is None else read(balance)

    return read_balance


MEASURES = (
    Measure("num_captions", "captions", "in the whole set, blank ones aside", ",d", lambda one: len(one.captions)),
    Measure(
        "mean_length", "words per caption", "without punctuation", ".1f", lambda one: one.figures.words.mean_length
    ),
    Measure(
        "vocabulary_size",
        "vocabulary",
        "different words of the sample",
        ",d",
        lambda one: len(one.figures.words.word_counts),
    ),
    Measure(
        "word_entropy",
        "entropy of words",
        "in bits; higher: rarer words do more of the work",
        ".2f",
        lambda one: one.figures.words.entropy,
    ),
    Measure(
        "distinct_1", "distinct-1", "different words over all words", ".3f", lambda one: one.figures.words.distinct[0]
    ),
    Measure(
        "distinct_2",
        "distinct-2",
        "different pairs of words",
        ".3f",
        lambda one: one.figures.words.distinct[1],
    ),
    Measure("distinct_3", "distinct-3", "different runs of three", ".3f", lambda one: one.figures.words.distinct[2]),
    Measure(
        "self_bleu",
        "self-BLEU-4",
        "of captions against others of the set; lower is more varied",
        ".3f",
        lambda one: one.figures.self_bleu,
    ),
    Measure(
        "near_duplicates",
        "near duplicates",
        "captions that share 80 % of their words with another one of the sample",
        ".1%",
        lambda one: one.figures.near_duplicates,
    ),
    Measure(
        "evaluation_overlap",
        "in the evaluation set",
        "captions that share 80 % of their words with one of the evaluation set",
        ".1%",
        lambda one: one.figures.evaluation_overlap,
    ),
    Measure(
        "num_classes",
        "classes",
        "that captions were written for",
        ",d",
        _of_classes(lambda classes: classes.num_groups),
    ),
    Measure(
        "class_evenness",
        "evenness of classes",
        "entropy over its greatest value; 1 is all alike",
        ".3f",
        _of_classes(lambda classes: classes.evenness),
    ),
    Measure(
        "class_gini",
        "Gini of classes",
        "0 is all alike, 1 is all in one class",
        ".3f",
        _of_classes(lambda classes: classes.gini),
    ),
    Measure(
        "class_top_five_share",
        "top-5 share of classes",
        "captions of the five largest classes",
        ".1%",
        _of_classes(lambda classes: classes.top_five_share),
    ),
    Measure(
        "own_top_five_share",
        "top-5 share, own clusters",
        "of clusters fitted to each set alone: how evenly it fills the room that it spans",
        ".1%",
        lambda one: one.own_balance.top_five_share,
    ),
    Measure(
        "own_entropy",
        "entropy, own clusters",
        "the same in bits; higher is more even",
        ".2f",
        lambda one: one.own_balance.entropy,
    ),
    Measure(
        "common_top_five_share",
        "top-5 share, common clusters",
        "of clusters fitted to all sets together: what a set leaves out shows here",
        ".1%",
        lambda one: one.common_balance.top_five_share,
    ),
    Measure(
        "common_entropy",
        "entropy, common clusters",
        "the same in bits; higher is more even",
        ".2f",
        lambda one: one.common_balance.entropy,
    ),
)


def list_measures(sets: Sequence[ComparedSet]) -> list[Measure]:
    """Give the measures that any of the sets has a figure for."""
    return [measure for measure in MEASURES if any(measure.read(one) is not None for one in sets)]
