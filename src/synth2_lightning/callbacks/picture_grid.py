"""What callbacks that draw a grid of validation pictures share."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from synth2_lightning.files import write_atomically
from synth2_lightning.types import ImageTextBatch


class PictureGridCallback(Callback, ABC):
    """Draws a grid after each validation, as PNG and for TensorBoard; a subclass says what a tile shows.

    Args:
        num_pictures: Tiles in the grid; the first ones of the validation set, so that grids can be compared.
        num_columns: Tiles in a row.
        folder: Where ``step=<n>.png`` goes; by default :attr:`folder_name` in the run's log folder.

    Attributes:
        folder_name: Folder inside the log folder.
        title: What TensorBoard calls the grid.
        gap: White pixels between tiles.

    Raises:
        ValueError: If a count is below one.
    """

    folder_name: ClassVar[str]
    title: ClassVar[str]
    gap: ClassVar[int]

    def __init__(self, num_pictures: int, num_columns: int, folder: str | None = None) -> None:
        if num_pictures < 1 or num_columns < 1:
            raise ValueError(
                f"{type(self).__name__} was asked for {num_pictures} pictures in {num_columns} columns; expected 1 or "
                "more of each."
            )
        self.num_pictures = num_pictures
        self.num_columns = num_columns
        self.folder = folder
        self._tiles: list[Image.Image] = []

    @abstractmethod
    def draw_tiles(self, outputs: Any, batch: ImageTextBatch, num_tiles: int) -> list[Image.Image]:
        """Draw a batch's first pictures, all tiles of one size.

        Args:
            outputs: What ``validation_step`` returned.
            batch: What it was given.
            num_tiles: Tiles that are still missing; more are not drawn.
        """

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
        """Take pictures until there are enough."""
        wanted = self.num_pictures - len(self._tiles)
        if wanted > 0 and trainer.is_global_zero and not trainer.sanity_checking:
            self._tiles += self.draw_tiles(outputs, batch, wanted)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw.

        Raises:
            OSError: If the folder cannot be written.
        """
        run_folder = trainer.log_dir or trainer.default_root_dir  # asked on every rank: the answer is broadcast
        if not self._tiles:
            return
        grid = draw_grid(self._tiles, self.num_columns, self.gap)
        folder = Path(self.folder or Path(run_folder) / self.folder_name)
        try:
            write_atomically(folder / f"step={trainer.global_step}.png", lambda draft: grid.save(draft, "PNG"))
        except OSError as error:
            raise OSError(
                f"{type(self).__name__} could not write to {folder}: {error}. Expected a folder that may be written; "
                "choose another with --trainer.default_root_dir or the callback's `folder`."
            ) from error
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(self.title, np.asarray(grid), trainer.global_step, dataformats="HWC")


def draw_grid(tiles: list[Image.Image], num_columns: int, gap: int) -> Image.Image:
    """Lay tiles of one size out in rows, white between them.

    Example:
        >>> draw_grid([Image.new("RGB", (10, 20))] * 3, num_columns=2, gap=4).size
        (28, 48)
    """
    num_rows = -(-len(tiles) // num_columns)
    width, height = tiles[0].width + gap, tiles[0].height + gap
    grid = Image.new("RGB", (num_columns * width, num_rows * height), "white")
    for position, tile in enumerate(tiles):
        row, column = divmod(position, num_columns)
        grid.paste(tile, (column * width, row * height))
    return grid
