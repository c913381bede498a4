"""What the encoders around a third party's network share: framing, normalising, and staying frozen."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, cast

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from synth2_lightning.interfaces import ImageEncoder
from synth2_lightning.types import Pixels

RGB = tuple[float, float, float]

_CPU_PICTURES = 8
"""Pictures that go through a network at a time on a CPU: the feature maps of more leave its cache."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a network wants its pictures.

    Args:
        image_size: Height and width in pixels.
        mean: Subtracted from values in [0, 1], per channel.
        std: Divides what is left, per channel.
        interpolation: How pictures of another size are resized; always with antialiasing.
        resize_mode: ``"shortest"`` scales the shorter side and cuts the middle out, ``"squash"`` scales both sides.

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

    def frame(self, images: UInt8[Tensor, "batch 3 height width"]) -> UInt8[Tensor, "batch 3 size size"]:
        """Bring pictures to the network's size; those that have it are left alone."""
        target = [self.image_size, self.image_size]
        if list(images.shape[-2:]) == target:
            return images
        size = target if self.resize_mode == "squash" else [self.image_size]
        resized = vision.resize(images, size, InterpolationMode(self.interpolation), antialias=True)
        return cast(Tensor, vision.center_crop(resized, target))


class FrozenEncoder(ImageEncoder, ABC):
    """An image encoder around one network that is never trained.

    Subclasses say how the network is built and where its features are taken; the feature map becomes one
    embedding per position, in raster order. The widths come from a forward pass without data or weights (on
    torch's ``meta`` device).

    Args:
        name: Identity of the embeddings.
        preprocessing: How the network wants its pictures.
        blueprint: The network on the ``meta`` device.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, preprocessing: Preprocessing, blueprint: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.preprocessing = preprocessing
        self.image_size = preprocessing.image_size
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)
        self.network: nn.Module | None = None
        with torch.device("meta"):
            picture = torch.zeros(1, 3, self.image_size, self.image_size)
            _, self.embed_dim, height, width = self.feature_map(blueprint.eval(), picture).shape
        self.num_tokens = height * width

    @abstractmethod
    def build_network(self) -> nn.Module:
        """Build the network with its weights."""

    @abstractmethod
    def feature_map(
        self, network: nn.Module, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch dim height width"]:
        """Run the network up to the features that are wanted."""

    def load(self) -> None:
        """Bring the weights; the second call does nothing."""
        if self.network is None:
            network = self.build_network().requires_grad_(False).eval()
            self.network = network.to(self.mean.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Stay in evaluation mode: dropout and batch statistics of a frozen network must not move."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def encode_pixels(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        """Embed pictures of any height and width.

        Raises:
            RuntimeError: If ``load()`` was not called.
        """
        if self.network is None:
            raise RuntimeError(f"The encoder {self.name!r} has no weights yet; call load() before encoding pictures.")
        network, num_pictures = self.network, _CPU_PICTURES if self.mean.is_cpu else max(1, len(pixels.values))
        return torch.cat([self._encode(network, part) for part in torch.split(pixels.values, num_pictures)])

    def _encode(self, network: nn.Module, values: Tensor) -> Tensor:
        images = self.preprocessing.frame(values).to(self.mean.dtype) / 255
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return rearrange(self.feature_map(network, images), "b d h w -> b (h w) d")
