"""BLEU-1 to BLEU-4 of a corpus: how many of the captions' n-grams people used of the same picture.

K. Papineni et al. 2002 (https://aclanthology.org/P02-1040), as pycocoevalcap has it: precisions over the whole corpus,
each count clipped at the most that any reference of the picture has; no smoothing; the brevity penalty against the
reference of the closest length (the shorter one of two). From 0 to 1; tables print it times 100.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp

import torch
from torch import Tensor

from synth2_lightning.metrics.corpus import CorpusMetric, check_corpus
from synth2_lightning.metrics.ngrams import MAX_N
from synth2_lightning.metrics.ptb import tokenize

# pycocoevalcap's guards against division by zero; they show in the ninth digit.
_TINY, _SMALL = 1e-15, 1e-9

NGram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BleuResult:
    """BLEU-1 to BLEU-4 of a corpus, and of every picture in it.

    Example:
        >>> BleuResult((0.7, 0.5, 0.4, 0.3), {"7": (0.7, 0.5, 0.4, 0.3)}).corpus[3]
        0.3
    """

    corpus: tuple[float, ...]
    scores: dict[str, tuple[float, ...]]


def bleu(hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> BleuResult:
    """Score captions against what people wrote of the same pictures.

    Args:
        hypotheses: The caption of every picture, by key.
        references: What people wrote, by key; keys that have no hypothesis play no part.

    Raises:
        ValueError: If there is no picture, or one of them has no references.

    Example:
        >>> result = bleu({"1": "A red circle."}, {"1": ["a red circle on the left", "one red circle"]})
        >>> [round(score, 3) for score in result.corpus[:2]]
        [1.0, 1.0]
    """
    check_corpus("BLEU", hypotheses, references)
    total = _Counts(0, 0, (0,) * MAX_N)
    scores = {}
    for key, hypothesis in hypotheses.items():
        counts = _count(tokenize(hypothesis).split(), [tokenize(text).split() for text in references[key]])
        scores[key] = counts.scores()
        total += counts
    return BleuResult(total.scores(), scores)


class Bleu(CorpusMetric):
    """BLEU-1 to BLEU-4 over all pictures of all ranks, the same for any number of ranks.

    Example:
        >>> metric = Bleu()
        >>> metric.update(["1"], ["a red circle"], [["a red circle on the left", "one red circle"]])
        >>> metric.compute()["bleu_2"]
        tensor(1.)
    """

    def compute(self) -> dict[str, Tensor]:
        """Score all pictures of all ranks; ``bleu_1`` to ``bleu_4``.

        Raises:
            ValueError: If there is no picture, or if two pictures share a key.
        """
        scores = bleu(*self.corpus()).corpus
        return {f"bleu_{n}": torch.tensor(score, device=self.device) for n, score in enumerate(scores, start=1)}


def list_ngrams(words: Sequence[str], size: int) -> list[NGram]:
    """All n-grams of one length, in order, repeats included.

    Example:
        >>> list_ngrams(["a", "red", "dog"], 2)
        [('a', 'red'), ('red', 'dog')]
    """
    return list(zip(*(words[start:] for start in range(size)), strict=False))


def limit_counts(references: Iterable[Sequence[str]], size: int) -> dict[NGram, int]:
    """The most that any reference has of each n-gram: what BLEU clips by.

    Example:
        >>> limit_counts([["a", "a"], ["a", "b"]], size=1)
        {('a',): 2, ('b',): 1}
    """
    most: dict[NGram, int] = {}
    for reference in references:
        for ngram, count in Counter(list_ngrams(reference, size)).items():
            most[ngram] = max(count, most.get(ngram, 0))
    return most


@dataclass(frozen=True, slots=True)
class _Counts:
    """Words, words of the closest reference, and n-grams that a reference has, for each length."""

    num_words: int
    num_reference_words: int
    matches: tuple[int, ...]
    ngrams: tuple[int, ...] = (0,) * MAX_N

    def __add__(self, other: "_Counts") -> "_Counts":
        return _Counts(
            self.num_words + other.num_words,
            self.num_reference_words + other.num_reference_words,
            tuple(map(sum, zip(self.matches, other.matches, strict=True))),
            tuple(map(sum, zip(self.ngrams, other.ngrams, strict=True))),
        )

    def scores(self) -> tuple[float, ...]:
        ratio = (self.num_words + _TINY) / (self.num_reference_words + _SMALL)
        penalty = exp(1 - 1 / ratio) if ratio < 1 else 1.0
        product, scores = 1.0, []
        for n, (matches, ngrams) in enumerate(zip(self.matches, self.ngrams, strict=True), start=1):
            product *= (matches + _TINY) / (ngrams + _SMALL)
            scores.append(product ** (1 / n) * penalty)
        return tuple(scores)


def _count(words: Sequence[str], references: Sequence[Sequence[str]]) -> _Counts:
    matches, ngrams = [], []
    for size in range(1, MAX_N + 1):
        counts = Counter(list_ngrams(words, size))
        limits = limit_counts(references, size)
        matches.append(sum(min(count, limits.get(ngram, 0)) for ngram, count in counts.items()))
        ngrams.append(counts.total())
    closest = min((abs(len(reference) - len(words)), len(reference)) for reference in references)[1]
    return _Counts(len(words), closest, tuple(matches), tuple(ngrams))
