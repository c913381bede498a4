"""Base class of callbacks that score the texts of a validation or test epoch as one corpus."""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer

from synth2_lightning.callbacks.evaluated_step import evaluated_step
from synth2_lightning.callbacks.run_folder import name_folder_settings, run_folder
from synth2_lightning.io.atomic import write_files
from synth2_lightning.metrics.corpus_metrics import CorpusMetric
from synth2_lightning.types import ImageTextBatch

log = logging.getLogger(__name__)

_VERSIONS = ("synth2-lightning", "torch", "transformers", "lightning")


@dataclass(frozen=True, slots=True)
class CorpusScore:
    """Score of a corpus, with the content of the files that are written with it.

    Args:
        value: The score.
        card: How it was measured, for ``protocol.json``; ``metric`` is its name.
        rows: One per image, for ``predictions.jsonl``.
        others: Other scores by name, which are logged and written beside it.
    """

    value: float
    card: dict[str, Any]
    rows: list[dict[str, Any]]
    others: dict[str, float] = field(default_factory=dict)


class CorpusScoreCallback(Callback, ABC):
    """Logs a score of a validation or test epoch and writes ``predictions.jsonl`` and ``protocol.json``.

    Texts of the steps' outputs are gathered over ranks with the keys of their images. Repeated keys, with which a
    distributed sampler pads, are dropped. Every rank scores the whole corpus once.

    Attributes:
        name: Name of the score; it is logged as ``<stage>/<name>``, its files are in ``<name>/<stage>-step=<n>/``.

    Args:
        metric: Gathers the texts over ranks.
        folder: Parent of the output folder; by default the run's log folder.
    """

    name: ClassVar[str]

    def __init__(self, metric: CorpusMetric, folder: str | None = None) -> None:
        self.folder = folder
        self._metric = metric
        self._sources: set[str] = set()

    @abstractmethod
    def score(self, hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CorpusScore:
        """Return the score of hypotheses against the references of the same images, both by key."""

    def update(self, outputs: Mapping[str, Any], batch: ImageTextBatch) -> None:
        """Add the texts of a batch to the metric."""
        self._metric.update(outputs["keys"], outputs["captions"], outputs["references"])

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the start of a validation or test: resets the metric."""
        self._metric.to(pl_module.device).reset()
        self._sources = set()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Run after each batch: adds its texts to the metric."""
        if not isinstance(outputs, Mapping) or "captions" not in outputs:
            raise TypeError(
                f"{type(self).__name__} got {type(outputs).__name__} from the step; expected a CaptionOutput with "
                "keys, captions and references. Return one from validation_step, or remove the callback."
            )
        self.update(outputs, batch)
        self._sources.update(batch.sources)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the end of a validation: logs the score, and writes its files."""
        if not trainer.sanity_checking:  # a score of two batches of an untrained model would be misleading
            self._score(trainer, pl_module, "val")

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the end of a test: logs the score, and writes its files."""
        self._score(trainer, pl_module, "test")

    def _score(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        with self._metric.sync_context():
            hypotheses, references = self._metric.corpus()
            num_repeats = len(self._metric.rows) - len(hypotheses)
        result = self.score(hypotheses, references)
        pl_module.log(f"{stage}/{self.name}", result.value, prog_bar=True)
        pl_module.log_dict({f"{stage}/{name}": value for name, value in result.others.items()})
        if not trainer.is_global_zero:
            return
        card = {
            "score": result.value,
            "split": stage,
            "sources": sorted(self._sources),
            "num_images": len(hypotheses),
            "num_references": sum(map(len, references.values())),
            "num_repeated_keys_dropped": num_repeats,
            "other_scores": result.others,
            **result.card,
            **getattr(pl_module, "protocol", dict)(),
            "versions": {name: version(name) for name in _VERSIONS},
        }
        parent = Path(self.folder or run_folder(trainer)) / self.name
        folder = parent / f"{stage}-step={evaluated_step(trainer, pl_module)}"
        self._write(folder, card, result.rows)
        log.info("%s/%s %.4f; texts in %s", stage, self.name, result.value, folder)

    def _write(self, folder: Path, card: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        # Both files at once, so that the card belongs to the texts.
        with name_folder_settings(self), write_files(folder) as draft:
            (draft / "predictions.jsonl").write_text(lines, "utf-8")
            (draft / "protocol.json").write_text(text, "utf-8")
