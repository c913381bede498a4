"""Pictures beside what the model says of them, for people who would look rather than read."""

import logging
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image, ImageDraw, ImageFont

from synth2_lightning.types import ImageTextBatch, Pixels

log = logging.getLogger(__name__)

_WIDTH, _TEXT_HEIGHT, _CHARACTERS = 224, 96, 36


class CaptionSamplesCallback(Callback):
    """Draws a grid of validation pictures with the model's caption and one human's: PNG and TensorBoard.

    Args:
        num_pictures: Pictures in the grid; the first ones of the validation set, so that grids can be compared.
        num_columns: Pictures in a row.
        folder: Where ``step=<n>.png`` goes; by default ``samples/`` in the run's log folder.

    Raises:
        ValueError: If a count is below one.

    Example:
        >>> CaptionSamplesCallback(num_pictures=4).num_columns
        4
    """

    def __init__(self, num_pictures: int = 12, num_columns: int = 4, folder: str | None = None) -> None:
        if num_pictures < 1 or num_columns < 1:
            raise ValueError(
                f"CaptionSamplesCallback was asked for {num_pictures} pictures in {num_columns} columns; expected 1 or "
                "more of each."
            )
        self.num_pictures = num_pictures
        self.num_columns = num_columns
        self.folder = folder
        self._tiles: list[Image.Image] = []

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
        if not trainer.is_global_zero or not isinstance(batch.image, Pixels):
            return
        wanted = self.num_pictures - len(self._tiles)
        for row in range(min(wanted, len(batch))):
            references = batch.references[row] if batch.references else batch.captions[row : row + 1]
            self._tiles.append(
                draw_tile(batch.image.values[row].cpu().numpy(), outputs["captions"][row], references[0])
            )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        folder = Path(self.folder or trainer.log_dir or ".") / "samples"  # on every rank: Lightning broadcasts it
        if not self._tiles or trainer.sanity_checking:
            return
        grid = draw_grid(self._tiles, self.num_columns)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            grid.save(folder / f"step={trainer.global_step}.png")
        except OSError as error:
            raise OSError(
                f"CaptionSamplesCallback could not write to {folder}: {error}. Expected a folder that may be written; "
                "choose another with --trainer.default_root_dir or the callback's `folder`."
            ) from error
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("val/captions", np.asarray(grid), trainer.global_step, dataformats="HWC")


def draw_tile(picture: UInt8[np.ndarray, "3 height width"], caption: str, reference: str) -> Image.Image:
    """Put a caption (black) and a reference (grey) under a picture.

    Args:
        picture: RGB.
        caption: What the model says.
        reference: What a human says.
    """
    tile = Image.new("RGB", (_WIDTH, _WIDTH + _TEXT_HEIGHT), "white")
    image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
    image.thumbnail((_WIDTH, _WIDTH))
    if max(image.size) < _WIDTH:
        scale = _WIDTH // max(image.size)
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    tile.paste(image, ((_WIDTH - image.width) // 2, 0))
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(12)
    line = _WIDTH + 4
    for text, colour in ((caption, "black"), (reference, "#777777")):
        for part in textwrap.wrap(text, _CHARACTERS)[:3]:
            draw.text((4, line), part, fill=colour, font=font)
            line += 15
    return tile


def draw_grid(tiles: list[Image.Image], num_columns: int) -> Image.Image:
    """Lay tiles of one size out in rows."""
    num_rows = -(-len(tiles) // num_columns)
    width, height = tiles[0].size
    grid = Image.new("RGB", (num_columns * (width + 8), num_rows * (height + 8)), "white")
    for position, tile in enumerate(tiles):
        grid.paste(tile, ((position % num_columns) * (width + 8), (position // num_columns) * (height + 8)))
    return grid
