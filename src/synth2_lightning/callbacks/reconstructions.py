"""Grids of images and their reconstructions by a tokenizer."""

from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from synth2_lightning.callbacks.image_grid import ImageGridCallback
from synth2_lightning.types import ImageTextBatch, Reconstruction


class ReconstructionsCallback(ImageGridCallback):
    """Draws validation images in pairs, the original above its reconstruction: PNG and loggers.

    Args:
        num_images: Images to draw; the first ones of the validation set, so that grids are comparable.
        num_columns: Images in a row.
        folder: Folder of ``step=<n>.png``; by default ``reconstructions/`` in the run's log folder.
    """

    folder_name = "reconstructions"
    name = "val/reconstructions"
    legend = "images above their reconstructions"
    gap = 8

    def __init__(self, num_images: int = 32, num_columns: int = 8, folder: str | None = None) -> None:
        super().__init__(num_images, num_columns, folder)

    def draw_tiles(self, outputs: Any, batch: ImageTextBatch, num_tiles: int) -> list[Image.Image]:
        """Return tiles of images above their reconstructions."""
        if not isinstance(outputs, dict) or not isinstance(outputs.get("reconstruction"), Reconstruction):
            raise TypeError(
                f"ReconstructionsCallback got {type(outputs).__name__} from the step; expected a "
                "ReconstructionOutput. Return one from validation_step, or remove the callback."
            )
        reconstruction: Reconstruction = outputs["reconstruction"]
        pairs = zip(reconstruction.target[:num_tiles], reconstruction.pixels[:num_tiles], strict=True)
        return [draw_pair(original, copy) for original, copy in pairs]


def draw_pair(original: Float[Tensor, "3 height width"], copy: Float[Tensor, "3 height width"]) -> Image.Image:
    """Return an image above its reconstruction; values are clamped to [-1, 1]."""
    values = ((torch.cat([original, copy], dim=1).float() + 1) * 127.5).round().clamp(0, 255)
    return Image.fromarray(values.to(torch.uint8).permute(1, 2, 0).cpu().numpy())
