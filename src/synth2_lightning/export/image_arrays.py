"""Images in arrays and tensors."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from synth2_lightning.sources.images import to_rgb


def from_tensor(tensor: Tensor, name: str) -> Image.Image:
    """Return the RGB image of a tensor of uint8, ``(1, height, width)`` or ``(3, height, width)``.

    Raises:
        ValueError: If it has another dtype or shape; the message has the given name.

    Example:
        >>> from_tensor(torch.zeros(1, 4, 6, dtype=torch.uint8), "black").size
        (6, 4)
    """
    if tensor.dtype != torch.uint8 or tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ValueError(_wrong_array(tensor, name, "(1, height, width) or (3, height, width)"))
    return from_array(tensor.cpu().movedim(0, -1).squeeze(-1).numpy(), name)


def from_array(array: NDArray[Any], name: str) -> Image.Image:
    """Return the RGB image of an array of uint8, ``(height, width)``, ``(height, width, 3)`` or ``(height, width, 4)``.

    Raises:
        ValueError: If it has another dtype or shape; the message has the given name.

    Example:
        >>> from_array(np.zeros((4, 6), dtype=np.uint8), "black").mode
        'RGB'
    """
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(_wrong_array(array, name, "(height, width), (height, width, 3) or (height, width, 4)"))
    return to_rgb(Image.fromarray(np.ascontiguousarray(array)))


def _wrong_array(given: NDArray[Any] | Tensor, name: str, layout: str) -> str:
    return (
        f"The image {name} has dtype {given.dtype} and shape {tuple(given.shape)}; expected uint8 (0 to 255) and shape "
        f"{layout}."
    )
