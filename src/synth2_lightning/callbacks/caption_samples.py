"""Grids of validation images with generated captions."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps

from synth2_lightning.callbacks.fonts import load_font
from synth2_lightning.callbacks.image_grid import ImageGridCallback
from synth2_lightning.types import ImageTextBatch, Pixels

_WIDTH, _LINE, _NUM_LINES = 224, 15, 3


class CaptionSamplesCallback(ImageGridCallback):
    """Draws validation images with the generated caption (black) and one reference (gray): PNG and loggers.

    Words of a caption that are in no reference of its image are red, a hint at what is wrong: references do not name
    everything.

    Args:
        num_images: Images in the grid; the first ones of the validation set, so that grids are comparable.
        num_columns: Images in a row.
        folder: Folder of ``step=<n>.png``; by default ``samples/`` in the run's log folder.

    Example:
        >>> CaptionSamplesCallback(num_images=4).num_columns
        4
    """

    folder_name = "samples"
    name = "val/captions"
    legend = "captions (red: words in no reference), and one reference (gray)"
    gap = 16

    def __init__(self, num_images: int = 12, num_columns: int = 4, folder: str | None = None) -> None:
        super().__init__(num_images, num_columns, folder)

    def draw_tiles(self, outputs: Any, batch: ImageTextBatch, num_tiles: int) -> list[Image.Image]:
        """Return tiles of images with their captions; none for a batch of tokens."""
        if not isinstance(batch.image, Pixels):
            return []
        references = batch.references or tuple((caption,) for caption in batch.captions)
        images = batch.image.values[:num_tiles].cpu().numpy()
        return [
            draw_tile(image, caption, texts)
            for image, caption, texts in zip(images, outputs["captions"], references, strict=False)
        ]


def draw_tile(image: UInt8[np.ndarray, "3 height width"], caption: str, references: Sequence[str]) -> Image.Image:
    """Return an image with a caption and the first reference (gray) below it, at most three lines each.

    Words of the caption are black, or red if there are references and none contains them.
    """
    resized = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    # Small images are synthetic scenes with sharp pixel edges.
    smooth = Image.Resampling.BICUBIC if max(resized.size) > _WIDTH // 2 else Image.Resampling.NEAREST
    resized = ImageOps.contain(resized, (_WIDTH, _WIDTH), smooth)
    num_lines = (1 + bool(references)) * _NUM_LINES
    tile = Image.new("RGB", (_WIDTH, resized.height + 4 + num_lines * _LINE), "white")
    tile.paste(resized, ((_WIDTH - resized.width) // 2, 0))
    draw, font = ImageDraw.Draw(tile), load_font(11)
    known = set(chain.from_iterable(map(_words, references)))
    top = resized.height + 4
    for text, color in ((caption, "black"), *((reference, "#777777") for reference in references[:1])):
        for line in _wrap(text, font):
            left = 0.0
            for word in line:
                is_wrong = color == "black" and known and not known.issuperset(_words(word))
                draw.text((left, top), word, fill="#c00000" if is_wrong else color, font=font)
                left += font.getlength(f"{word} ")
            top += _LINE
    return tile


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Iterator[list[str]]:
    words = text.split()
    for number in range(1, _NUM_LINES + 1):
        end = " …" if number == _NUM_LINES else ""
        length = next((n for n in range(len(words), 1, -1) if font.getlength(" ".join(words[:n]) + end) <= _WIDTH), 1)
        line, words = words[:length], words[length:]
        yield [*line, "…"] if words and end else line
        if not words:
            return
