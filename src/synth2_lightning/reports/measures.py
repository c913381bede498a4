"""Measures in the table of a report: values, labels, number formats and descriptions."""

from collections.abc import Sequence
from typing import NamedTuple

from synth2_lightning.reports.comparison import ComparedSet


class Measure(NamedTuple):
    """Row of the table.

    Attributes:
        key: Name in ``report.json``.
        label: Name on the page.
        description: One line.
        format_spec: Format specification of the value.
    """

    key: str
    label: str
    description: str
    format_spec: str


_OVERLAP = "captions with a Jaccard similarity of words ≥ 0.8 to"
_TOP_FIVE = "captions in the five largest clusters, fitted to"

MEASURES = (
    Measure("num_captions", "captions", "in the complete set, without blank ones", ",d"),
    Measure("mean_length", "words per caption", "without punctuation", ".1f"),
    Measure("vocabulary_size", "vocabulary size", "distinct words in the sample", ",d"),
    Measure("word_entropy", "word entropy", "in bits; higher is more diverse", ".2f"),
    Measure("distinct_1", "distinct-1", "distinct words / all words", ".3f"),
    Measure("distinct_2", "distinct-2", "distinct bigrams / all bigrams", ".3f"),
    Measure("distinct_3", "distinct-3", "distinct trigrams / all trigrams", ".3f"),
    Measure(
        "self_bleu",
        "self-BLEU-4",
        "BLEU-4 of captions against other captions of the set; lower is more diverse",
        ".3f",
    ),
    Measure("near_duplicates", "near duplicates", f"{_OVERLAP} another one in the sample", ".1%"),
    Measure("evaluation_overlap", "overlap with evaluation set", f"{_OVERLAP} one in the evaluation set", ".1%"),
    Measure("num_classes", "classes", "in the complete set", ",d"),
    Measure("class_evenness", "class evenness", "entropy / maximum entropy (Pielou); 1 for equal class sizes", ".3f"),
    Measure("class_gini", "class Gini coefficient", "0 for equal class sizes, near 1 if one class dominates", ".3f"),
    Measure("class_top_five_fraction", "top-5 classes", "captions in the five largest classes", ".1%"),
    Measure(
        "own_top_five_fraction",
        "top-5 own clusters",
        f"{_TOP_FIVE} each set separately; lower is more balanced",
        ".1%",
    ),
    Measure("own_entropy", "entropy of own clusters", "in bits; higher is more balanced", ".2f"),
    Measure(
        "common_top_five_fraction",
        "top-5 common clusters",
        f"{_TOP_FIVE} all sets together; high if topics are missing",
        ".1%",
    ),
    Measure("common_entropy", "entropy of common clusters", "in bits; higher is more balanced", ".2f"),
)


def compute_measures(compared: ComparedSet) -> dict[str, int | float | None]:
    """Return the values of a set by the keys of ``MEASURES``; ``None`` for those that it does not have."""
    statistics, words = compared.statistics, compared.statistics.words
    classes, own, common = statistics.class_balance, compared.own_balance, compared.common_balance
    return {
        "num_captions": len(compared.captions),
        "mean_length": words.mean_length,
        "vocabulary_size": len(words.word_counts),
        "word_entropy": words.entropy,
        "distinct_1": words.distinct[0],
        "distinct_2": words.distinct[1],
        "distinct_3": words.distinct[2],
        "self_bleu": statistics.self_bleu,
        "near_duplicates": statistics.near_duplicates,
        "evaluation_overlap": statistics.evaluation_overlap,
        "num_classes": classes.num_groups if classes else None,
        "class_evenness": classes.evenness if classes else None,
        "class_gini": classes.gini if classes else None,
        "class_top_five_fraction": classes.top_five_fraction if classes else None,
        "own_top_five_fraction": own.top_five_fraction,
        "own_entropy": own.entropy,
        "common_top_five_fraction": common.top_five_fraction,
        "common_entropy": common.entropy,
    }


def tabulate(sets: Sequence[ComparedSet]) -> list[tuple[Measure, list[str]]]:
    """Return the measures that any set has, each with its formatted values by set; a dash where a set has none."""
    columns = [compute_measures(one) for one in sets]
    rows = [(measure, [column[measure.key] for column in columns]) for measure in MEASURES]
    return [
        (measure, ["-" if value is None else format(value, measure.format_spec) for value in values])
        for measure, values in rows
        if any(value is not None for value in values)
    ]
