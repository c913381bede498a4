"""Pictures beside what the model says of them, for people who would look rather than read."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps

from synth2_lightning.callbacks.picture_grid import PictureGridCallback
from synth2_lightning.types import ImageTextBatch, Pixels

_WIDTH, _LINE, _NUM_LINES = 224, 15, 3


class CaptionSamplesCallback(PictureGridCallback):
    """Draws validation pictures with the model's caption (black) and one human's (grey): PNG and TensorBoard.

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

    folder_name = "samples"
    title = "val/captions"
    gap = 8

    def __init__(self, num_pictures: int = 12, num_columns: int = 4, folder: str | None = None) -> None:
        super().__init__(num_pictures, num_columns, folder)

    def draw_tiles(self, outputs: Any, batch: ImageTextBatch, num_tiles: int) -> list[Image.Image]:
        """Draw pictures with their captions; batches of tokens have no pictures to draw."""
        if not isinstance(batch.image, Pixels):
            return []
        references = batch.references or tuple((caption,) for caption in batch.captions)
        pictures = batch.image.values[:num_tiles].cpu().numpy()
        return [
            draw_tile(picture, caption, texts[0])
            for picture, caption, texts in zip(pictures, outputs["captions"], references, strict=False)
        ]


def draw_tile(picture: UInt8[np.ndarray, "3 height width"], caption: str, reference: str) -> Image.Image:
    """Put a caption (black) and a reference (grey) under a picture, three lines each.

    Args:
        picture: RGB.
        caption: What the model says.
        reference: What a human says.
    """
    image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
    # Small pictures are drawn ones: their pixels may show.
    smooth = Image.Resampling.BICUBIC if max(image.size) > _WIDTH // 2 else Image.Resampling.NEAREST
    image = ImageOps.contain(image, (_WIDTH, _WIDTH), smooth)
    tile = Image.new("RGB", (_WIDTH, image.height + (2 * _NUM_LINES + 1) * _LINE), "white")
    tile.paste(image, ((_WIDTH - image.width) // 2, 0))
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(12)
    top = image.height + 4
    for text, colour in ((caption, "black"), (reference, "#777777")):
        for line in _wrap(text, font):
            draw.text((0, top), line, fill=colour, font=font)
            top += _LINE
    return tile


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Iterator[str]:
    words = text.split()
    for number in range(1, _NUM_LINES + 1):
        end = " …" if number == _NUM_LINES else ""
        length = next((n for n in range(len(words), 1, -1) if font.getlength(" ".join(words[:n]) + end) <= _WIDTH), 1)
        line, words = " ".join(words[:length]), words[length:]
        yield line + end if words else line
        if not words:
            return
