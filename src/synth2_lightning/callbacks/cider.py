"""CIDEr of the captions of a validation or test epoch, and other metrics beside it."""

from collections.abc import Mapping, Sequence

from synth2_lightning.callbacks.corpus_score import CorpusScore, CorpusScoreCallback
from synth2_lightning.metrics.bleu import bleu
from synth2_lightning.metrics.cider import cider, human_cider
from synth2_lightning.metrics.corpus_metrics import Cider
from synth2_lightning.metrics.diversity import measure_distinct_n
from synth2_lightning.metrics.rouge import rouge


class CiderCallback(CorpusScoreCallback):
    """Logs ``val/cider`` or ``test/cider`` and writes ``predictions.jsonl`` and ``protocol.json`` beside it.

    The whole corpus is scored at once, because CIDEr's document frequencies are corpus-wide: a mean over ranks differs.
    Papers report a score of 1.0 as 100. ``protocol.json`` also has ``human_score``, the score of one human
    reference of each image against its others, if every image has at least two.

    Logged beside it, because captions can be made for CIDEr: ``bleu_1`` to ``bleu_4`` and ``rouge_l``, from 0 to 1;
    ``length``, the mean number of words; ``distinct_1`` and ``distinct_2``, which depend on the number of images.

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
        others = {
            **{f"bleu_{n}": score for n, score in enumerate(bleu(hypotheses, references).corpus, start=1)},
            "rouge_l": rouge(hypotheses, references).score,
            **measure_distinct_n(list(hypotheses.values())),
        }
        return CorpusScore(result.score, card, rows, others)
