"""Scores the captions of a validation or test pass, and writes down what was scored and how."""

import json
import logging
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from synth2_lightning.metrics.cider import Cider

log = logging.getLogger(__name__)

_VERSIONS = ("synth2-lightning", "torch", "transformers", "lightning")


class CiderCallback(Callback):
    """Logs ``val/cider`` or ``test/cider`` and writes ``predictions.jsonl`` and ``protocol.json`` beside it.

    Captions come from the steps' outputs; they are gathered with their picture's key, repeated keys (a
    distributed sampler pads with repeats) are dropped, and the corpus is scored once, because CIDEr's document
    frequencies are corpus-wide: a mean over ranks is another number. A score of 1.0 is what papers print as 100.

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
        result = self._metric.score()
        pl_module.log(f"{stage}/cider", result.score, prog_bar=True, rank_zero_only=False, sync_dist=False)
        if trainer.is_global_zero:
            folder = Path(self.folder or trainer.log_dir or ".") / "cider" / f"{stage}-step={trainer.global_step}"
            card = {
                "metric": "CIDEr-D",
                "score": result.score,
                "split": stage,
                "num_pictures": len(result.hypotheses),
                "num_references": sum(len(texts) for texts in result.references.values()),
                "num_repeated_keys_dropped": result.num_dropped,
                "tokeniser": "Penn Treebank, lower case, punctuation removed",
                "document_frequencies": "the references of this corpus",
                **getattr(pl_module, "protocol", dict)(),
                "versions": {name: version(name) for name in _VERSIONS},
            }
            self._write(folder, card, result)
            log.info(
                "%s/cider %.4f over %d pictures; captions in %s", stage, result.score, len(result.hypotheses), folder
            )

    def _write(self, folder: Path, card: dict[str, Any], result: Any) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "protocol.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")
            with (folder / "predictions.jsonl").open("w", encoding="utf-8") as lines:
                for key, caption in result.hypotheses.items():
                    row = {
                        "key": key,
                        "caption": caption,
                        "references": list(result.references[key]),
                        "cider": round(result.per_key[key], 6),
                    }
                    lines.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise OSError(
                f"CiderCallback could not write to {folder}: {error}. Expected a folder that may be written; choose "
                "another with --trainer.default_root_dir or the callback's `folder`."
            ) from error
