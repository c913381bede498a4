"""ROUGE-L: how long a subsequence of words a caption has in common with what people said of the same picture.

C.-Y. Lin 2004 (https://aclanthology.org/W04-1013), as pycocoevalcap has it: precision and recall of the longest common
subsequence, the best of each over the references, which need not be the same one; their F with a recall that weighs
1.2 times as much; the mean over pictures. From 0 to 1; tables print it times 100.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synth2_lightning.metrics.corpus import CorpusMetric, check_corpus
from synth2_lightning.metrics.ptb import tokenize

_BETA = 1.2


@dataclass(frozen=True, slots=True)
class RougeResult:
    """ROUGE-L of a corpus, and of every picture in it.

    Example:
        >>> RougeResult(score=0.5, scores={"7": 0.4, "8": 0.6}).score
        0.5
    """

    score: float
    scores: dict[str, float]


def rouge(hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> RougeResult:
    """Score captions against what people wrote of the same pictures.

    Args:
        hypotheses: The caption of every picture, by key.
        references: What people wrote, by key; keys that have no hypothesis play no part.

    Raises:
        ValueError: If there is no picture, or one of them has no references.

    Example:
        >>> round(rouge({"1": "a red circle"}, {"1": ["a big red circle"]}).score, 3)
        0.836
    """
    check_corpus("ROUGE-L", hypotheses, references)
    scores = {key: _score(_split(text), list(map(_split, references[key]))) for key, text in hypotheses.items()}
    return RougeResult(sum(scores.values()) / len(scores), scores)


class Rouge(CorpusMetric):
    """ROUGE-L over all pictures of all ranks, the same for any number of ranks.

    Example:
        >>> metric = Rouge()
        >>> metric.update(["1"], ["a red circle"], [["a big red circle"]])
        >>> metric.compute()
        tensor(0.8356)
    """

    def compute(self) -> Tensor:
        """Score all pictures of all ranks.

        Raises:
            ValueError: If there is no picture, or if two pictures share a key.
        """
        return torch.tensor(rouge(*self.corpus()).score, device=self.device)


def _split(text: str) -> list[str]:
    # At single spaces, as pycocoevalcap does here alone: "1 1/2" is one word, and no caption is one empty word.
    return tokenize(text).split(" ")


def _score(words: list[str], references: list[list[str]]) -> float:
    lengths = [_longest_common_subsequence(words, reference) for reference in references]
    precision = max(length / len(words) for length in lengths)
    recall = max(length / len(reference) for length, reference in zip(lengths, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _longest_common_subsequence(one: list[str], other: list[str]) -> int:
    """Length of the longest list of words that both have in this order, gaps allowed."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = row
        row = [0]
        for column, candidate in enumerate(other, start=1):
            row.append(before[column - 1] + 1 if word == candidate else max(before[column], row[-1]))
    return row[-1]
