"""How varied the words of a caption set are.

Every figure here depends on how many captions it is counted in: compare sets by samples of equal size.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np

from synth2_lightning.metrics.balance import measure_balance
from synth2_lightning.metrics.bleu import limit_counts, list_ngrams
from synth2_lightning.metrics.ptb import tokenize

_ORDER = 4
_EPSILON = 0.1  # smoothing method 1 of B. Chen and C. Cherry (2014), which Texygen takes


@dataclass(frozen=True, slots=True)
class WordFigures:
    """What is counted in the words of captions.

    Args:
        num_captions: Captions counted in.
        lengths: How many captions have how many words, shortest first.
        mean_length: Words per caption.
        word_counts: How often every word occurs, most frequent first.
        entropy: Of the words' frequencies, in bits.
        distinct: Different n-grams over all n-grams, for n = 1, 2, 3, from 0 to 1 (J. Li et al. 2016,
            arXiv 1510.03055).

    Example:
        >>> measure_words(["A dog runs."]).lengths
        {3: 1}
    """

    num_captions: int
    lengths: dict[int, int]
    mean_length: float
    word_counts: dict[str, int]
    entropy: float
    distinct: tuple[float, float, float]


def split_caption(caption: str) -> list[str]:
    """Split a caption into the words that all figures here are counted in: as CIDEr does, without punctuation.

    Example:
        >>> split_caption("A dog, in the snow.")
        ['a', 'dog', 'in', 'the', 'snow']
    """
    return tokenize(caption).split(" ") if caption.strip() else []


def measure_words(captions: Sequence[str]) -> WordFigures:
    """Count words.

    Raises:
        ValueError: If the captions hold no word.

    Example:
        >>> figures = measure_words(["a red dog", "a red cat"])
        >>> len(figures.word_counts), figures.mean_length, figures.distinct
        (4, 3.0, (0.6666666666666666, 0.75, 1.0))
    """
    texts = [split_caption(caption) for caption in captions]
    words = Counter(word for text in texts for word in text if word)
    if not words:
        raise ValueError(f"{len(captions)} captions hold no word; expected at least one. Look at the caption column.")
    lengths = Counter(map(len, texts))
    return WordFigures(
        num_captions=len(captions),
        lengths=dict(sorted(lengths.items())),
        mean_length=words.total() / len(captions),
        word_counts=dict(words.most_common()),
        entropy=measure_balance(words.values()).entropy,
        distinct=(_share_distinct(texts, 1), _share_distinct(texts, 2), _share_distinct(texts, 3)),
    )


def measure_self_bleu(
    captions: Sequence[str], num_hypotheses: int = 1000, num_references: int = 1000, seed: int = 0
) -> float:
    """Measure how well captions predict each other: the mean BLEU-4 of some against others (lower is more varied).

    Self-BLEU of Texygen (Y. Zhu et al. 2018, arXiv 1802.01886) scores every caption against all others. Here the
    hypotheses and the references, which all hypotheses share, are two disjoint samples: the time is linear, and sets
    of any size compare as long as the samples have the same size. BLEU is that of sentences: geometric mean of the
    clipped precisions of 1- to 4-grams, where none matches 0.1 of one does, times the brevity penalty against the
    reference of the closest length (the shorter one of two).

    Args:
        captions: The set; at least two.
        num_hypotheses: Captions to score; of fewer captions, what the references leave.
        num_references: Captions to score against; at most half of the captions.
        seed: Decides the samples.

    Returns:
        From 0, nothing in common, to 1, all captions alike.

    Raises:
        ValueError: If there are fewer than two captions.

    Example:
        >>> measure_self_bleu(["a dog runs in the snow"] * 8)
        1.0
    """
    if len(captions) < 2:
        raise ValueError(f"Self-BLEU was given {len(captions)} captions; expected two or more.")
    order = np.random.default_rng(seed).permutation(len(captions))
    num_references = min(num_references, len(captions) // 2)
    rows = order[: num_references + num_hypotheses]
    texts = [split_caption(captions[row]) for row in rows]
    references, hypotheses = texts[:num_references], texts[num_references:]
    limits = [limit_counts(references, size) for size in range(1, _ORDER + 1)]
    lengths = sorted({len(reference) for reference in references})
    return sum(_bleu(hypothesis, limits, lengths) for hypothesis in hypotheses) / len(hypotheses)


def _share_distinct(texts: Sequence[list[str]], size: int) -> float:
    ngrams = [ngram for text in texts for ngram in list_ngrams(text, size)]
    return len(set(ngrams)) / max(1, len(ngrams))


def _bleu(text: list[str], limits: Sequence[dict[tuple[str, ...], int]], lengths: Sequence[int]) -> float:
    if not text:
        return 0.0
    log_precision = 0.0
    for size, limit in enumerate(limits, start=1):
        counts = Counter(list_ngrams(text, size))
        matches = sum(min(count, limit.get(ngram, 0)) for ngram, count in counts.items())
        log_precision += log((matches or _EPSILON) / max(1, counts.total())) / len(limits)
    closest = min(lengths, key=lambda length: abs(length - len(text)))  # of two, the shorter: lengths are sorted
    return exp(log_precision + min(0.0, 1 - closest / len(text)))
