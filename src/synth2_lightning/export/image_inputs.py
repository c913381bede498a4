"""Images as users pass them: paths, PIL images, arrays and tensors."""

from pathlib import Path
from typing import Any, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from synth2_lightning.sources.images import decode_image, to_rgb

ImageLike = str | Path | Image.Image | NDArray[Any] | Tensor
"""A path, a PIL image, or uint8 values: an array of shape ``(height, width)``, ``(height, width, 3)`` or
``(height, width, 4)``, or a tensor of shape ``(1, height, width)`` or ``(3, height, width)``."""

MAX_PIXELS = 178_956_970
"""Default limit of an image's pixels, the value from which Pillow refuses images."""


def read_image(image: ImageLike, name: str, image_size: int, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return an image in RGB, in its own size.

    Args:
        image: The image.
        name: Name of an array or a tensor in errors; that of a file is its path.
        image_size: Side in pixels that it will be resized to.
        max_pixels: Maximum number of pixels of a file.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If an array or a tensor has another dtype or shape.

    Example:
        >>> read_image(np.zeros((6, 8), dtype=np.uint8), "number 0", image_size=4).size
        (8, 6)
    """
    match image:
        case str() | Path():
            return decode_image(Path(image), str(image), max_pixels, wanted_size=image_size)
        case Image.Image():
            return to_rgb(image)
        case Tensor():
            return _from_tensor(image, name)
        case np.ndarray():
            return _from_array(image, name)
        case _:
            assert_never(image)


def _from_tensor(tensor: Tensor, name: str) -> Image.Image:
    if tensor.dtype != torch.uint8 or tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ValueError(_wrong_array(tensor, name, "(1, height, width) or (3, height, width)"))
    return _from_array(tensor.cpu().movedim(0, -1).squeeze(-1).numpy(), name)


def _from_array(array: NDArray[Any], name: str) -> Image.Image:
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(_wrong_array(array, name, "(height, width), (height, width, 3) or (height, width, 4)"))
    return to_rgb(Image.fromarray(np.ascontiguousarray(array)))


def _wrong_array(given: NDArray[Any] | Tensor, name: str, layout: str) -> str:
    return (
        f"The image {name} has dtype {given.dtype} and shape {tuple(given.shape)}; expected uint8 (0 to 255) and shape "
        f"{layout}."
    )
