"""Measures in the table of a report: label, number format and description."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from synth2_lightning.metrics.balance import Balance
from synth2_lightning.reports.comparison import ComparedSet


@dataclass(frozen=True, slots=True)
class Measure:
    """Row of the table.

    Args:
        key: Name in ``report.json``.
        label: Name on the page.
        description: One line.
        format_spec: Format specification of the value.
        get: Returns the value of a set, or ``None`` if it has none.

    Example:
        >>> [measure.key for measure in MEASURES][:3]
        ['num_captions', 'mean_length', 'vocabulary_size']
    """

    key: str
    label: str
    description: str
    format_spec: str
    get: Callable[[ComparedSet], int | float | None]

    def format(self, compared: ComparedSet) -> str:
        """Return the formatted value of a set; a dash if it has none."""
        value = self.get(compared)
        return "-" if value is None else format(value, self.format_spec)


def _of_classes(get: Callable[[Balance], int | float]) -> Callable[[ComparedSet], int | float | None]:
    def get_from_balance(compared: ComparedSet) -> int | float | None:
        balance = compared.statistics.class_balance
        return None if balance is None else get(balance)

    return get_from_balance


MEASURES = (
    Measure("num_captions", "captions", "in the complete set, without blank ones", ",d", lambda one: len(one.captions)),
    Measure(
        "mean_length", "words per caption", "without punctuation", ".1f", lambda one: one.statistics.words.mean_length
    ),
    Measure(
        "vocabulary_size",
        "vocabulary size",
        "distinct words in the sample",
        ",d",
        lambda one: len(one.statistics.words.word_counts),
    ),
    Measure(
        "word_entropy",
        "word entropy",
        "in bits; higher is more diverse",
        ".2f",
        lambda one: one.statistics.words.entropy,
    ),
    Measure(
        "distinct_1", "distinct-1", "distinct words / all words", ".3f", lambda one: one.statistics.words.distinct[0]
    ),
    Measure(
        "distinct_2",
        "distinct-2",
        "distinct bigrams / all bigrams",
        ".3f",
        lambda one: one.statistics.words.distinct[1],
    ),
    Measure(
        "distinct_3",
        "distinct-3",
        "distinct trigrams / all trigrams",
        ".3f",
        lambda one: one.statistics.words.distinct[2],
    ),
    Measure(
        "self_bleu",
        "self-BLEU-4",
        "BLEU-4 of captions against other captions of the set; lower is more diverse",
        ".3f",
        lambda one: one.statistics.self_bleu,
    ),
    Measure(
        "near_duplicates",
        "near duplicates",
        "captions with a Jaccard similarity of words ≥ 0.8 to another one in the sample",
        ".1%",
        lambda one: one.statistics.near_duplicates,
    ),
    Measure(
        "evaluation_overlap",
        "overlap with evaluation set",
        "captions with a Jaccard similarity of words ≥ 0.8 to one in the evaluation set",
        ".1%",
        lambda one: one.statistics.evaluation_overlap,
    ),
    Measure(
        "num_classes",
        "classes",
        "in the complete set",
        ",d",
        _of_classes(lambda classes: classes.num_groups),
    ),
    Measure(
        "class_evenness",
        "class evenness",
        "entropy / maximum entropy (Pielou); 1 for equal class sizes",
        ".3f",
        _of_classes(lambda classes: classes.evenness),
    ),
    Measure(
        "class_gini",
        "class Gini coefficient",
        "0 for equal class sizes, near 1 if one class dominates",
        ".3f",
        _of_classes(lambda classes: classes.gini),
    ),
    Measure(
        "class_top_five_fraction",
        "top-5 classes",
        "captions in the five largest classes",
        ".1%",
        _of_classes(lambda classes: classes.top_five_fraction),
    ),
    Measure(
        "own_top_five_fraction",
        "top-5 own clusters",
        "captions in the five largest clusters, fitted to each set separately; lower is more balanced",
        ".1%",
        lambda one: one.own_balance.top_five_fraction,
    ),
    Measure(
        "own_entropy",
        "entropy of own clusters",
        "in bits; higher is more balanced",
        ".2f",
        lambda one: one.own_balance.entropy,
    ),
    Measure(
        "common_top_five_fraction",
        "top-5 common clusters",
        "captions in the five largest clusters, fitted to all sets together; high if topics are missing",
        ".1%",
        lambda one: one.common_balance.top_five_fraction,
    ),
    Measure(
        "common_entropy",
        "entropy of common clusters",
        "in bits; higher is more balanced",
        ".2f",
        lambda one: one.common_balance.entropy,
    ),
)


def list_measures(sets: Sequence[ComparedSet]) -> list[Measure]:
    """Return the measures that have a value for any of the sets."""
    return [measure for measure in MEASURES if any(measure.get(one) is not None for one in sets)]
