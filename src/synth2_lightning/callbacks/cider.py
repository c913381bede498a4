"""CIDEr of the captions of a validation or test epoch."""

from collections.abc import Mapping, Sequence

from synth2_lightning.callbacks.corpus_score import CorpusScore, CorpusScoreCallback
from synth2_lightning.metrics.cider import Cider, cider, human_cider


class CiderCallback(CorpusScoreCallback):
    """Logs ``val/cider`` or ``test/cider`` and writes ``predictions.jsonl`` and ``protocol.json`` beside it.

    The whole corpus is scored at once, because CIDEr's document frequencies are corpus-wide: a mean over ranks differs.
    Papers report a score of 1.0 as 100. ``protocol.json`` also has ``human_score``, the score of one human
    reference of each image against its others, if every image has at least two.

    Args:
        folder: Parent of the output folder; by default the run's log folder. Each epoch writes to
            ``cider/<stage>-step=<n>/``.

    Example:
        >>> CiderCallback().folder is None
        True
    """

    name = "cider"

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(Cider(), folder)

    def score(self, hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CorpusScore:
        """Return the score of captions against the references of the same images, both by key."""
        result = cider(hypotheses, references)
        card = {
            "metric": "CIDEr-D",
            "human_score": human_cider(references).score if min(map(len, references.values())) > 1 else None,
            "tokenizer": "Penn Treebank, lower case, punctuation removed",
            "document_frequencies": "of this split's references",
        }
        rows = [
            {"key": key, "caption": caption, "references": references[key], "cider": round(result.scores[key], 6)}
            for key, caption in hypotheses.items()
        ]
        return CorpusScore(result.score, card, rows)
