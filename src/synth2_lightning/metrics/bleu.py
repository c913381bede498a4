"""BLEU-1 to BLEU-4 (K. Papineni et al. 2002, https://aclanthology.org/P02-1040), computed by pycocoevalcap.

Corpus-level clipped precisions; pycocoevalcap adds 1e-15 and 1e-9 to counts, so that no score is exactly 0. The brevity
penalty uses the reference of closest length (the shorter one of a tie). Scores are in [0, 1]; papers report them times
100.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synth2_lightning.metrics.corpus import check_corpus, tokenize_corpus
from synth2_lightning.metrics.ngrams import MAX_N


@dataclass(frozen=True, slots=True)
class BleuResult:
    """BLEU-1 to BLEU-4 of a corpus, and of each image by key."""

    corpus: tuple[float, ...]
    scores: dict[str, tuple[float, ...]]


def bleu(hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> BleuResult:
    """Return BLEU of captions against reference captions.

    Args:
        hypotheses: Generated caption by key.
        references: Reference captions by key; keys without a hypothesis are ignored.

    Raises:
        ValueError: If there is no image, or an image has no references.

    Example:
        >>> result = bleu({"1": "A red circle."}, {"1": ["a red circle on the left", "one red circle"]})
        >>> [round(score, 3) for score in result.corpus[:2]]
        [1.0, 1.0]
    """
    from pycocoevalcap.bleu.bleu import Bleu as CocoBleu

    check_corpus("BLEU", hypotheses, references)
    words, wanted = tokenize_corpus(hypotheses, references)
    corpus, scores = CocoBleu(MAX_N).compute_score(wanted, words, verbose=0)
    return BleuResult(tuple(corpus), dict(zip(words, zip(*scores, strict=True), strict=True)))
