"""ROUGE-L (C.-Y. Lin 2004, https://aclanthology.org/W04-1013), computed by pycocoevalcap.

Precision and recall of the longest common subsequence, each its maximum over the references, combined into an F-measure
with beta = 1.2 and averaged over images. Scores are in [0, 1]; papers report them times 100.
"""

from collections.abc import Mapping, Sequence

from synth2_lightning.metrics.corpus import CorpusResult, check_corpus, tokenize_corpus


def rouge(hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CorpusResult:
    """Return ROUGE-L of captions against reference captions.

    Args:
        hypotheses: Generated caption by key.
        references: Reference captions by key; keys without a hypothesis are ignored.

    Raises:
        ValueError: If there is no image, or an image has no references.

    Example:
        >>> round(rouge({"1": "a red circle"}, {"1": ["a big red circle"]}).score, 3)
        0.836
    """
    from pycocoevalcap.rouge.rouge import Rouge as CocoRouge

    check_corpus("ROUGE-L", hypotheses, references)
    words, wanted = tokenize_corpus(hypotheses, references)
    score, scores = CocoRouge().compute_score(wanted, words)
    return CorpusResult(float(score), dict(zip(words, scores.tolist(), strict=True)))
