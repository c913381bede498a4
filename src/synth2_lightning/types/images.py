"""Encoder inputs: pixels, image tokens, and mixtures of both."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int, UInt8
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pixels:
    """RGB images, *not* normalized: the encoder owns the normalization."""

    values: UInt8[Tensor, "batch 3 height width"]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.values)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Pixels":
        """Move to a device; page-locked memory is copied to a GPU without waiting."""
        return replace(self, values=self.values.to(device, non_blocking=non_blocking or self.values.is_pinned()))

    def pin_memory(self) -> "Pixels":
        """Copy to page-locked memory."""
        return replace(self, values=self.values.pin_memory())


@dataclass(frozen=True, slots=True)
class VQTokens:
    """Codebook ids in raster order, and the fingerprint of the codebook that they belong to.

    ``ids`` has one column per residual level; a plain VQ-GAN has one level. A fingerprint has the form
    ``"vqgan-512:1f3c9a02"``. Encoders raise on ids of another codebook.
    """

    ids: Int[Tensor, "batch tokens levels"]
    codebook: str

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "VQTokens":
        """Move to a device; page-locked memory is copied to a GPU without waiting."""
        return replace(self, ids=self.ids.to(device, non_blocking=non_blocking or self.ids.is_pinned()))

    def pin_memory(self) -> "VQTokens":
        """Copy to page-locked memory."""
        return replace(self, ids=self.ids.pin_memory())


@dataclass(frozen=True, slots=True)
class MixedImages:
    """Images of several types, concatenated: the rows of the batch are the rows of the parts, in order.

    Example:
        >>> pixels = Pixels(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
        >>> tokens = VQTokens(torch.zeros(3, 64, 1, dtype=torch.long), "vqgan-512:1f3c9a02")
        >>> len(MixedImages((pixels, tokens)))
        5
    """

    parts: tuple[Pixels | VQTokens, ...]

    def __len__(self) -> int:
        """Number of images over all parts."""
        return sum(len(part) for part in self.parts)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "MixedImages":
        """Move to a device."""
        return replace(self, parts=tuple(part.to(device, non_blocking) for part in self.parts))

    def pin_memory(self) -> "MixedImages":
        """Copy to page-locked memory."""
        return replace(self, parts=tuple(part.pin_memory() for part in self.parts))


ImageInput = Pixels | VQTokens | MixedImages
