"""Lexical diversity of a caption set.

All of these metrics depend on the number of captions: compare sets by samples of equal size.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np

from synth2_lightning.metrics.balance import measure_balance
from synth2_lightning.metrics.ptb import tokenize

_ORDER = 4
_EPSILON = 0.1  # smoothing method 1 of B. Chen and C. Cherry (2014), as in Texygen


@dataclass(frozen=True, slots=True)
class WordStatistics:
    """Word statistics of captions.

    Args:
        num_captions: Number of captions.
        lengths: Number of captions by number of words, shortest first.
        mean_length: Mean number of words per caption.
        word_counts: Number of occurrences of each word, most frequent first.
        entropy: Entropy of the word distribution, in bits.
        distinct: Distinct-1, -2 and -3: distinct n-grams divided by all n-grams, in [0, 1] (J. Li et al. 2016,
            arXiv 1510.03055).
    """

    num_captions: int
    lengths: dict[int, int]
    mean_length: float
    word_counts: dict[str, int]
    entropy: float
    distinct: tuple[float, float, float]


def split_caption(caption: str) -> list[str]:
    """Return the Penn Treebank tokens of a caption without punctuation, as used by CIDEr.

    Example:
        >>> split_caption("A dog, in the snow.")
        ['a', 'dog', 'in', 'the', 'snow']
    """
    return [word for word in tokenize(caption).split(" ") if word]  # not split(): a token may have a no-break space


def measure_words(captions: Sequence[str]) -> WordStatistics:
    """Return word statistics of captions.

    Raises:
        ValueError: If the captions contain no word.

    Example:
        >>> figures = measure_words(["a red dog", "a red cat"])
        >>> len(figures.word_counts), figures.mean_length, figures.distinct
        (4, 3.0, (0.6666666666666666, 0.75, 1.0))
    """
    texts = [split_caption(caption) for caption in captions]
    words = Counter(word for text in texts for word in text)
    if not words:
        raise ValueError(f"{len(captions)} captions contain no word; expected at least one. Check the caption column.")
    lengths = Counter(map(len, texts))
    return WordStatistics(
        num_captions=len(captions),
        lengths=dict(sorted(lengths.items())),
        mean_length=words.total() / len(captions),
        word_counts=dict(words.most_common()),
        entropy=measure_balance(words.values()).entropy,
        distinct=(_distinct_fraction(texts, 1), _distinct_fraction(texts, 2), _distinct_fraction(texts, 3)),
    )


def measure_distinct_n(captions: Sequence[str]) -> dict[str, float]:
    """Return distinct-1 and -2 of captions (see :class:`WordStatistics`) and their mean length in words, by name.

    All are 0 without captions or words. Unlike :func:`measure_words`, it is made for each step or epoch of a training.

    Example:
        >>> measure_distinct_n(["a red dog", "a red cat"])
        {'length': 3.0, 'distinct_1': 0.6666666666666666, 'distinct_2': 0.75}
    """
    texts = [split_caption(caption) for caption in captions]
    return {
        "length": sum(map(len, texts)) / max(1, len(texts)),
        "distinct_1": _distinct_fraction(texts, 1),
        "distinct_2": _distinct_fraction(texts, 2),
    }


def measure_self_bleu(
    captions: Sequence[str], num_hypotheses: int = 1000, num_references: int = 1000, seed: int = 0
) -> float:
    """Return self-BLEU: the mean BLEU-4 of sampled captions against other sampled captions (lower is more diverse).

    Self-BLEU of Texygen (Y. Zhu et al. 2018, arXiv 1802.01886) scores each caption against all others. Here hypotheses
    and references are two disjoint samples, and all hypotheses share the references: the time is linear, and sets are
    comparable if their samples have equal sizes. Sentence-level BLEU: the geometric mean of the clipped precisions of
    1- to 4-grams (0.1 matches where there are none), times the brevity penalty against the reference of closest length
    (the shorter one of a tie).

    Args:
        captions: At least two captions.
        num_hypotheses: Maximum number of captions to score.
        num_references: Maximum number of captions to score against; at most half of the captions are used.
        seed: Seed of the samples.

    Returns:
        Self-BLEU in [0, 1]; 1 if all captions are equal.

    Raises:
        ValueError: If there are fewer than two captions.

    Example:
        >>> measure_self_bleu(["a dog runs in the snow"] * 8)
        1.0
    """
    if len(captions) < 2:
        raise ValueError(f"Self-BLEU got {len(captions)} captions; expected at least two.")
    order = np.random.default_rng(seed).permutation(len(captions))
    num_references = min(num_references, len(captions) // 2)
    rows = order[: num_references + num_hypotheses]
    texts = [split_caption(captions[row]) for row in rows]
    references, hypotheses = texts[:num_references], texts[num_references:]
    limits = [_limit_counts(references, size) for size in range(1, _ORDER + 1)]
    lengths = sorted({len(reference) for reference in references})
    return sum(_bleu(hypothesis, limits, lengths) for hypothesis in hypotheses) / len(hypotheses)


def _distinct_fraction(texts: Sequence[list[str]], size: int) -> float:
    ngrams = [ngram for text in texts for ngram in _list_ngrams(text, size)]
    return len(set(ngrams)) / max(1, len(ngrams))


def _bleu(text: list[str], limits: Sequence[dict[tuple[str, ...], int]], lengths: Sequence[int]) -> float:
    if not text:
        return 0.0
    log_precision = 0.0
    for size, limit in enumerate(limits, start=1):
        counts = Counter(_list_ngrams(text, size))
        matches = sum(min(count, limit.get(ngram, 0)) for ngram, count in counts.items())
        log_precision += log((matches or _EPSILON) / max(1, counts.total())) / len(limits)
    closest = min(lengths, key=lambda length: abs(length - len(text)))  # the shorter one of a tie: lengths are sorted
    return exp(log_precision + min(0.0, 1 - closest / len(text)))


def _list_ngrams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(size)), strict=False))


def _limit_counts(references: Iterable[Sequence[str]], size: int) -> dict[tuple[str, ...], int]:
    # Maximum count of each n-gram over the references, for clipped precision.
    most: dict[tuple[str, ...], int] = {}
    for reference in references:
        for ngram, count in Counter(_list_ngrams(reference, size)).items():
            most[ngram] = max(count, most.get(ngram, 0))
    return most
