"""Pictures above what a tokenizer makes of them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor

from synth2_lightning.types import ImageTextBatch, Reconstruction


class ReconstructionsCallback(Callback):
    """Draws validation pictures in pairs, the original above its reconstruction: PNG and TensorBoard.

    Args:
        num_pictures: Pictures to draw; the first ones of the validation set, so that grids can be compared.
        num_columns: Pictures in a row.
        folder: Where ``step=<n>.png`` goes; by default ``reconstructions/`` in the run's log folder.

    Raises:
        ValueError: If a count is below one.

    Example:
        >>> ReconstructionsCallback(num_pictures=8, num_columns=4).num_columns
        4
    """

    def __init__(self, num_pictures: int = 32, num_columns: int = 8, folder: str | None = None) -> None:
        if num_pictures < 1 or num_columns < 1:
            raise ValueError(
                f"ReconstructionsCallback was asked for {num_pictures} pictures in {num_columns} columns; expected 1 "
                "or more of each."
            )
        self.num_pictures = num_pictures
        self.num_columns = num_columns
        self.folder = folder
        self._tiles: list[Tensor] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last pass."""
        self._tiles = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageTextBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take pictures until there are enough.

        Raises:
            TypeError: If the step gave no reconstruction.
        """
        if not isinstance(outputs, dict) or not isinstance(outputs.get("reconstruction"), Reconstruction):
            raise TypeError(
                f"ReconstructionsCallback was given {type(outputs).__name__} by the step; expected a "
                "ReconstructionOutput. Return one from validation_step, or remove the callback."
            )
        reconstruction: Reconstruction = outputs["reconstruction"]
        wanted = self.num_pictures - len(self._tiles)
        for original, copy in zip(reconstruction.target[:wanted], reconstruction.pixels[:wanted], strict=True):
            self._tiles.append(torch.cat([original, copy], dim=1).float().cpu())

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw.

        Raises:
            OSError: If the folder cannot be written.
        """
        run_folder = trainer.log_dir or trainer.default_root_dir  # asked on every rank: the answer is broadcast
        if not self._tiles or trainer.sanity_checking or not trainer.is_global_zero:
            return
        grid = draw_pairs(self._tiles, self.num_columns)
        folder = Path(self.folder or Path(run_folder) / "reconstructions")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            grid.save(folder / f"step={trainer.global_step}.png")
        except OSError as error:
            raise OSError(
                f"ReconstructionsCallback could not write to {folder}: {error}. Expected a folder that may be "
                "written; choose another with --trainer.default_root_dir or the callback's `folder`."
            ) from error
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(
                    "val/reconstructions", np.asarray(grid), trainer.global_step, dataformats="HWC"
                )


def draw_pairs(tiles: list[Tensor], num_columns: int, gap: int = 2) -> Image.Image:
    """Lay tiles of one size out in rows.

    Args:
        tiles: ``(3, height, width)`` each, from -1 to 1; what is outside is clamped.
        num_columns: Tiles in a row.
        gap: White pixels between tiles.
    """
    _, height, width = tiles[0].shape
    num_rows = -(-len(tiles) // num_columns)
    grid = Image.new("RGB", (num_columns * (width + gap), num_rows * (height + gap)), "white")
    for position, tile in enumerate(tiles):
        values = ((tile + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        row, column = divmod(position, num_columns)
        grid.paste(Image.fromarray(values.permute(1, 2, 0).numpy()), (column * (width + gap), row * (height + gap)))
    return grid
