"""Scores of a corpus of captions, and what its metrics share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synth2_lightning.metrics.ptb import tokenize


@dataclass(frozen=True, slots=True)
class CorpusResult:
    """Score of a corpus, and the score of each image by key.

    Example:
        >>> CorpusResult(score=0.5, scores={"7": 0.4, "8": 0.6}).score
        0.5
    """

    score: float
    scores: dict[str, float]


def check_corpus(name: str, hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    """Check that a corpus has images and that each one has references; the name is that of the metric.

    Raises:
        ValueError: If there is no image, or an image has no references.
    """
    if not hypotheses:
        raise ValueError(f"{name} got no images; expected at least one caption with references.")
    for key in hypotheses:
        check_references(key, references.get(key, ()))


def check_references(key: str, texts: Sequence[str]) -> None:
    """Check the references of an image.

    Raises:
        ValueError: If there are none, or they are a string instead of a sequence of strings.
    """
    if isinstance(texts, str) or not texts:
        raise ValueError(f"Image {key!r} has the references {texts!r}; expected a sequence of at least one caption.")


def tokenize_corpus(
    hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return tokenized hypotheses and references by key, in the format of pycocoevalcap's scorers.

    Example:
        >>> tokenize_corpus({"1": "A dog."}, {"1": ["The dog runs."], "2": ["A cat."]})
        ({'1': ['a dog']}, {'1': ['the dog runs']})
    """
    return (
        {key: [tokenize(text)] for key, text in hypotheses.items()},
        {key: [tokenize(text) for text in references[key]] for key in hypotheses},
    )
