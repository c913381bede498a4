"""Base class of callbacks that draw a grid of validation images."""

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image, ImageDraw

from synth2_lightning.callbacks.evaluated_step import evaluated_step
from synth2_lightning.callbacks.fonts import load_font
from synth2_lightning.callbacks.logged_samples import log_image
from synth2_lightning.callbacks.run_folder import name_folder_settings, run_folder
from synth2_lightning.io.atomic import write_atomically
from synth2_lightning.types import ImageTextBatch

_MARGIN, _TITLE = 12, 24


class ImageGridCallback(Callback, ABC):
    """Draws a grid after each validation, as PNG and for the loggers; subclasses draw the tiles.

    Args:
        num_images: Tiles in the grid; the first images of the validation set, so that grids are comparable.
        num_columns: Tiles in a row.
        folder: Folder of ``step=<n>.png``; by default :attr:`folder_name` in the run's log folder.

    Attributes:
        folder_name: Folder inside the log folder.
        name: Name of the grid in TensorBoard, Weights & Biases and MLflow.
        legend: What the tiles show, drawn above them after the number of steps.
        gap: White pixels between tiles.

    Raises:
        ValueError: If a count is below one.
    """

    folder_name: ClassVar[str]
    name: ClassVar[str]
    legend: ClassVar[str]
    gap: ClassVar[int]

    def __init__(self, num_images: int, num_columns: int, folder: str | None = None) -> None:
        if num_images < 1 or num_columns < 1:
            raise ValueError(
                f"{type(self).__name__} got {num_images} images in {num_columns} columns; expected 1 or more of each."
            )
        self.num_images = num_images
        self.num_columns = num_columns
        self.folder = folder
        self._tiles: list[Image.Image] = []

    @abstractmethod
    def draw_tiles(self, outputs: Any, batch: ImageTextBatch, num_tiles: int) -> list[Image.Image]:
        """Return at most ``num_tiles`` tiles of one size, of the first images of a validation step's batch."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the start of a validation: clears the grid."""
        self._tiles = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageTextBatch, *args: Any
    ) -> None:
        """Run after each batch of a validation: adds its tiles, until the grid is full."""
        num_missing = self.num_images - len(self._tiles)
        if num_missing > 0 and trainer.is_global_zero and not trainer.sanity_checking:
            self._tiles += self.draw_tiles(outputs, batch, num_missing)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the end of a validation: writes the grid."""
        if not self._tiles:
            return
        step = evaluated_step(trainer, pl_module)
        grid = draw_grid(self._tiles, self.num_columns, self.gap, f"Step {step}: {self.legend}")
        folder = Path(self.folder or run_folder(trainer) / self.folder_name)
        with name_folder_settings(self):
            write_atomically(folder / f"step={step}.png", lambda draft: grid.save(draft, "PNG"))
        log_image(trainer.loggers, self.name, grid, step)


# torchvision.utils.make_grid has no title, and takes tensors instead of PIL images.
def draw_grid(tiles: list[Image.Image], num_columns: int, gap: int, title: str) -> Image.Image:
    """Return tiles of one size in rows below a title, with a white gap between them and a margin around them.

    Example:
        >>> draw_grid([Image.new("RGB", (100, 20))] * 3, num_columns=2, gap=4, title="Step 0").size
        (228, 92)
    """
    num_columns = min(num_columns, len(tiles))
    num_rows = -(-len(tiles) // num_columns)
    width, height = tiles[0].width + gap, tiles[0].height + gap
    top = _MARGIN + _TITLE
    font = load_font(12)
    inner = max(num_columns * width - gap, math.ceil(font.getlength(title)))
    grid = Image.new("RGB", (inner + 2 * _MARGIN, num_rows * height - gap + top + _MARGIN), "white")
    ImageDraw.Draw(grid).text((_MARGIN, _MARGIN), title, fill="black", font=font)
    for position, tile in enumerate(tiles):
        row, column = divmod(position, num_columns)
        grid.paste(tile, (_MARGIN + column * width, top + row * height))
    return grid
