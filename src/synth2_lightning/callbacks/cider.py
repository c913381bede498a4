"""Scores the captions of a validation or test pass, and writes down what was scored and how."""

import json
import logging
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from synth2_lightning.metrics.cider import Cider, cider, human_cider

log = logging.getLogger(__name__)

_VERSIONS = ("synth2-lightning", "torch", "transformers", "lightning")


class CiderCallback(Callback):
    """Logs ``val/cider`` or ``test/cider`` and writes ``predictions.jsonl`` and ``protocol.json`` beside it.

    Captions come from the steps' outputs; they are gathered with their picture's key, repeated keys (a
    distributed sampler pads with repeats) are dropped, and the corpus is scored once, because CIDEr's document
    frequencies are corpus-wide: a mean over ranks is another number. A score of 1.0 is what papers print as 100.
    Beside it stands ``human_score``, what one person's captions score against the others', where each picture has two.

    Args:
        folder: Where the files go; by default the run's log folder. Each pass writes
            ``cider/<stage>-step=<n>/``.

    Example:
        >>> CiderCallback().folder is None
        True
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self._metric = Cider()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last pass."""
        self._metric.to(pl_module.device).reset()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take the captions of a batch."""
        self._take(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score, log and write."""
        if not trainer.sanity_checking:  # two batches of an untrained model: a score would only mislead
            self._score(trainer, pl_module, "val")

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score, log and write."""
        self._score(trainer, pl_module, "test")

    def _take(self, outputs: Any) -> None:
        if not isinstance(outputs, Mapping) or "captions" not in outputs:
            raise TypeError(
                f"CiderCallback was given {type(outputs).__name__} by the step; expected a CaptionOutput with keys, "
                "captions and references. Return one from validation_step, or remove the callback."
            )
        self._metric.update(outputs["keys"], outputs["captions"], outputs["references"])

    def _score(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        with self._metric.sync_context():
            hypotheses, references = self._metric.corpus()
            num_repeats = len(self._metric.rows) - len(hypotheses)
        result = cider(hypotheses, references)
        pl_module.log(f"{stage}/cider", result.score, prog_bar=True)
        run_folder = self.folder or trainer.log_dir or "."  # asked on every rank: Lightning broadcasts it
        if not trainer.is_global_zero:
            return
        card = {
            "metric": "CIDEr-D",
            "score": result.score,
            "human_score": human_cider(references).score if min(map(len, references.values())) > 1 else None,
            "split": stage,
            "num_pictures": len(hypotheses),
            "num_references": sum(map(len, references.values())),
            "num_repeated_keys_dropped": num_repeats,
            "tokeniser": "Penn Treebank, lower case, punctuation removed",
            "document_frequencies": "of this split's references",
            **getattr(pl_module, "protocol", dict)(),
            "versions": {name: version(name) for name in _VERSIONS},
        }
        rows = [
            {"key": key, "caption": caption, "references": references[key], "cider": round(result.scores[key], 6)}
            for key, caption in hypotheses.items()
        ]
        folder = Path(run_folder) / "cider" / f"{stage}-step={trainer.global_step}"
        _write(folder, card, rows)
        log.info("%s/cider %.4f; captions in %s", stage, result.score, folder)


def _write(folder: Path, card: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "protocol.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")
        (folder / "predictions.jsonl").write_text(lines, "utf-8")
    except OSError as error:
        raise OSError(
            f"CiderCallback could not write to {folder}: {error}. Expected a folder that may be written; choose "
            "another with --trainer.default_root_dir or the callback's `folder`."
        ) from error
