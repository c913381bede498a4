"""Grids of generated images beside the real ones."""

import logging
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from synth2_lightning.callbacks.caption_samples import draw_tile
from synth2_lightning.callbacks.image_grid import ImageGridCallback
from synth2_lightning.interfaces import ImageTokenizer
from synth2_lightning.types import ImageTextBatch, VQTokens

_logger = logging.getLogger(__name__)


class GeneratedSamplesCallback(ImageGridCallback):
    """Draws generated images (left) and the real ones, decoded from their tokens (right), above their captions.

    If the tokenizer has no decoder, nothing is drawn, and one warning is logged.

    Args:
        num_images: Pairs in the grid; the first ones of the validation set, so that grids are comparable.
        num_columns: Pairs in a row.
        folder: Folder of ``step=<n>.png``; by default ``generated/`` in the run's log folder.
    """

    folder_name = "generated"
    name = "val/generated"
    legend = "generated images (left) and real ones (right), both decoded from image tokens"
    gap = 16

    def __init__(self, num_images: int = 16, num_columns: int = 4, folder: str | None = None) -> None:
        super().__init__(num_images, num_columns, folder)
        self._tokenizer: ImageTokenizer | None = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the start of a validation: clears the grid, and gets the module's tokenizer."""
        super().on_validation_epoch_start(trainer, pl_module)
        tokenizer = getattr(pl_module, "tokenizer", None)
        if not isinstance(tokenizer, ImageTokenizer):
            raise TypeError(
                f"GeneratedSamplesCallback got a {type(pl_module).__name__} without a tokenizer; expected a MuseModule."
                " Remove the callback from the run file."
            )
        self._tokenizer = tokenizer

    def draw_tiles(self, outputs: Any, batch: ImageTextBatch, num_tiles: int) -> list[Image.Image]:
        """Return tiles of pairs with their captions."""
        assert self._tokenizer is not None, "set by on_validation_epoch_start"
        generated, real = outputs["generated"], outputs["real"]
        try:
            pairs = [
                self._tokenizer.detokenize(VQTokens(tokens.ids[:num_tiles], tokens.codebook)).values.cpu().numpy()
                for tokens in (generated, real)
            ]
        except TypeError as error:
            _logger.warning("No generated images are drawn: %s", error)
            self.num_images = 0
            return []
        drawn, decoded = pairs
        between = np.full((*drawn.shape[:3], drawn.shape[3] // 16), 255, np.uint8)
        tiles = zip(np.concatenate([drawn, between, decoded], axis=3), outputs["captions"], strict=False)
        return [draw_tile(image, caption, ()) for image, caption in tiles]
