"""Scores the captions of a validation or test pass by CIDEr."""

from collections.abc import Mapping, Sequence

from synth2_lightning.callbacks.corpus_score import CorpusScore, CorpusScoreCallback
from synth2_lightning.metrics.cider import Cider, cider, human_cider


class CiderCallback(CorpusScoreCallback):
    """Logs ``val/cider`` or ``test/cider`` and writes ``predictions.jsonl`` and ``protocol.json`` beside it.

    The corpus is scored once, because CIDEr's document frequencies are corpus-wide: a mean over ranks is another
    number. A score of 1.0 is what papers print as 100. Beside it stands ``human_score``, what one person's captions
    score against the others', where each picture has two.

    Args:
        folder: Where the files go; by default the run's log folder. Each pass writes
            ``cider/<stage>-step=<n>/``.

    Example:
        >>> CiderCallback().folder is None
        True
    """

    name = "cider"

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(Cider(), folder)

    def score(self, hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CorpusScore:
        """Score captions against what people wrote of the same pictures, both by key."""
        result = cider(hypotheses, references)
        card = {
            "metric": "CIDEr-D",
            "human_score": human_cider(references).score if min(map(len, references.values())) > 1 else None,
            "tokeniser": "Penn Treebank, lower case, punctuation removed",
            "document_frequencies": "of this split's references",
        }
        rows = [
            {"key": key, "caption": caption, "references": references[key], "cider": round(result.scores[key], 6)}
            for key, caption in hypotheses.items()
        ]
        return CorpusScore(result.score, card, rows)
