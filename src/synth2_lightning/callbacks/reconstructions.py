"""Pictures above what a tokenizer makes of them."""

from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from synth2_lightning.callbacks.picture_grid import PictureGridCallback
from synth2_lightning.types import ImageTextBatch, Reconstruction


class ReconstructionsCallback(PictureGridCallback):
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

    folder_name = "reconstructions"
    title = "val/reconstructions"
    gap = 2

    def __init__(self, num_pictures: int = 32, num_columns: int = 8, folder: str | None = None) -> None:
        super().__init__(num_pictures, num_columns, folder)

    def draw_tiles(self, outputs: Any, batch: ImageTextBatch, num_tiles: int) -> list[Image.Image]:
        """Draw pairs.

        Raises:
            TypeError: If the step gave no reconstruction.
        """
        if not isinstance(outputs, dict) or not isinstance(outputs.get("reconstruction"), Reconstruction):
            raise TypeError(
                f"ReconstructionsCallback was given {type(outputs).__name__} by the step; expected a "
                "ReconstructionOutput. Return one from validation_step, or remove the callback."
            )
        reconstruction: Reconstruction = outputs["reconstruction"]
        pairs = zip(reconstruction.target[:num_tiles], reconstruction.pixels[:num_tiles], strict=True)
        return [draw_pair(original, copy) for original, copy in pairs]


def draw_pair(original: Float[Tensor, "3 height width"], copy: Float[Tensor, "3 height width"]) -> Image.Image:
    """Put a picture above its reconstruction; values go from -1 to 1, what is outside is clamped."""
    values = ((torch.cat([original, copy], dim=1).float() + 1) * 127.5).round().clamp(0, 255)
    return Image.fromarray(values.to(torch.uint8).permute(1, 2, 0).cpu().numpy())
