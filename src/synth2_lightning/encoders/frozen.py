"""Base class of image encoders that wrap a third-party network: preprocessing and feature extraction."""

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from synth2_lightning.interfaces import ImageEncoder
from synth2_lightning.nn.cpu_kernels import FROZEN_CHUNK
from synth2_lightning.types import Pixels

RGB = tuple[float, float, float]
Network = TypeVar("Network")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Resizing and normalization of a network's input images.

    Args:
        image_size: Height and width in pixels.
        mean: Channel means of values in [0, 1].
        std: Channel standard deviations.
        interpolation: Interpolation for resizing, always with antialiasing.
        resize_mode: ``"shortest"`` resizes the shorter side and center-crops, ``"squash"`` resizes both sides.

    Example:
        >>> preprocessing = Preprocessing(8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> preprocessing.frame(torch.zeros(1, 3, 20, 10, dtype=torch.uint8)).shape
        torch.Size([1, 3, 8, 8])
    """

    image_size: int
    mean: RGB
    std: RGB
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"

    def fingerprint(self, default: "Preprocessing") -> str:
        """Return six hexadecimal digits of a hash after ``+``; empty for the default apart from the size.

        Example:
            >>> from dataclasses import replace
            >>> default = Preprocessing(8, (0.5,) * 3, (0.5,) * 3)
            >>> replace(default, image_size=16).fingerprint(default)
            ''
            >>> replace(default, resize_mode="squash").fingerprint(default)[0]
            '+'
        """
        ours, others = (
            json.dumps([each.mean, each.std, each.interpolation, each.resize_mode]) for each in (self, default)
        )
        return "" if ours == others else f"+{hashlib.sha256(ours.encode()).hexdigest()[:6]}"

    def frame(self, images: UInt8[Tensor, "batch 3 height width"]) -> UInt8[Tensor, "batch 3 size size"]:
        """Resize and crop images to the network's size; images of that size are returned unchanged."""
        target = [self.image_size, self.image_size]
        if list(images.shape[-2:]) == target:
            return images
        size = target if self.resize_mode == "squash" else [self.image_size]
        resized = vision.resize(images, size, InterpolationMode(self.interpolation), antialias=True)
        cropped: Tensor = vision.center_crop(resized, target)
        return cropped


class FrozenEncoder(ImageEncoder, ABC, Generic[Network]):
    """Image encoder that wraps one frozen network, of a library's class or a protocol.

    Subclasses define how the network is built and which feature map is used; each position of the map becomes one
    embedding, in raster order. A forward pass on torch's ``meta`` device determines the sizes without weights.

    Args:
        name: Identity of the embeddings.
        preprocessing: Preprocessing of the input images.
        blueprint: The network on the ``meta`` device.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, preprocessing: Preprocessing, blueprint: Network) -> None:
        super().__init__()
        self.name = name
        self.preprocessing = preprocessing
        self.image_size = preprocessing.image_size
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)
        self.network: Network | None = None
        if isinstance(blueprint, nn.Module):
            blueprint.eval()
        with torch.device("meta"):
            image = torch.zeros(1, 3, self.image_size, self.image_size)
            _, self.embed_dim, height, width = self.feature_map(blueprint, image).shape
        self.num_tokens = height * width

    @abstractmethod
    def build_network(self) -> Network:
        """Return the network with its weights."""

    @abstractmethod
    def feature_map(
        self, network: Network, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch dim height width"]:
        """Return the feature map that becomes the embeddings."""

    def _load(self) -> None:
        network: Any = self.build_network()
        self.network = network.to(self.mean.device, memory_format=torch.channels_last)

    @torch.no_grad()
    def encode_pixels(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        """Embed images of any height and width."""
        if self.network is None:
            raise RuntimeError(f"The weights of encoder {self.name!r} are not loaded; call load() first.")
        num_images = FROZEN_CHUNK if self.mean.is_cpu else max(1, len(pixels.values))
        return torch.cat([self._encode(self.network, part) for part in torch.split(pixels.values, num_images)])

    def _encode(self, network: Network, values: Tensor) -> Tensor:
        images = self.preprocessing.frame(values).to(self.mean.dtype) / 255
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return rearrange(self.feature_map(network, images), "b d h w -> b (h w) d")
