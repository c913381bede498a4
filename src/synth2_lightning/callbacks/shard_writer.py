"""Write what a prediction makes to token shards."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from synth2_lightning import __version__
from synth2_lightning.shards.parts import list_sources
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.types import TokenizedImages

log = logging.getLogger(__name__)


class ShardWriterCallback(Callback):
    """Writes the :class:`TokenizedImages` of every ``predict_step`` to a folder of shards, rank by rank.

    A run that was killed is started again with the same command: pictures that are written already are made, compared
    by source and key, and not written again. The predictions are not kept in memory, so ``Trainer.predict`` returns
    none. (It is no ``BasePredictionWriter``: that asks Lightning for the indices of every batch, which nobody needs
    here.)

    Args:
        folder: Where the shards go.
        records_per_part: Pictures per file; a kill loses no more than these.

    Example:
        >>> ShardWriterCallback("shards/coco").folder
        'shards/coco'
    """

    def __init__(self, folder: str, records_per_part: int = 10_000) -> None:
        self.folder = folder
        self.records_per_part = records_per_part
        self._writer: ShardWriter | None = None
        self._num_known = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what the folder holds."""
        trainer.predict_loop.return_predictions = False
        self._writer = ShardWriter(self._path, trainer.global_rank, self.records_per_part)
        self._num_known = 0

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take the pictures of a batch.

        Raises:
            TypeError: If the module predicts something else.
        """
        if not isinstance(outputs, TokenizedImages):
            raise TypeError(
                f"ShardWriterCallback got {type(outputs).__name__} from {type(pl_module).__name__}.predict_step; "
                "expected TokenizedImages, such as modules.tokenization.TokenizationModule returns."
            )
        assert self._writer is not None, "on_predict_start makes the writer"
        self._num_known += len(outputs) - self._writer.append(outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the rest, and the manifest once every rank has done so."""
        assert self._writer is not None, "on_predict_start makes the writer"
        self._writer.close()
        if self._num_known:
            log.info("%d pictures were in %s already, or stood in for damaged ones", self._num_known, self.folder)
        trainer.strategy.barrier("shards are written")
        if trainer.is_global_zero:
            manifest = finish(self._path, self._describe(pl_module))
            log.info("%d pictures are in %s", manifest.num_records, self.folder)
        trainer.strategy.barrier("manifest is written")

    @property
    def _path(self) -> Path:
        return Path(self.folder).expanduser()

    def _describe(self, pl_module: LightningModule) -> dict[str, Any]:
        return {
            "synth2_lightning": __version__,
            "made_by": type(pl_module).__name__,
            "sources": list_sources(self._path),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
