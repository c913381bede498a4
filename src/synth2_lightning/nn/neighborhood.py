"""Resampler with convolutions over the grid of image embeddings."""

import math

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from synth2_lightning.interfaces import Resampler


class NeighborhoodResampler(Resampler):
    """ConvNeXt layers (arXiv 2201.03545) followed by a resampler, for embeddings with little spatial context.

    Cross-attention sums over positions, so a Perceiver slowly learns what only several neighboring codes of a VQ-GAN
    determine together, such as an outline. Honeybee (arXiv 2312.06742) found that convolutions in the connector keep
    local context. Its abstractor pools; here the grid keeps its size, and any resampler can follow.

    Args:
        resampler: Maps the outputs of the convolutions to visual tokens.
        num_layers: ConvNeXt layers; each extends the receptive field by ``kernel_size // 2``.
        kernel_size: Kernel size of the depthwise convolution, odd.
        width: Inner width; that of the visual tokens by default.

    Raises:
        ValueError: If ``num_layers`` is below one, ``kernel_size`` is even, or the embeddings form no square grid.

    Example:
        >>> import torch
        >>> from synth2_lightning.nn.perceiver import PerceiverResampler
        >>> resampler = NeighborhoodResampler(PerceiverResampler(num_latents=4, depth=1, num_heads=2), num_layers=1)
        >>> resampler.build(input_dim=64, output_dim=32)(torch.randn(2, 49, 64)).shape
        torch.Size([2, 4, 32])
    """

    def __init__(
        self,
        resampler: Resampler,
        num_layers: int = 2,
        kernel_size: int = 3,
        width: int | None = None,
    ) -> None:
        super().__init__()
        if num_layers < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"NeighborhoodResampler was given num_layers={num_layers} and kernel_size={kernel_size}; expected 1 "
                "layer or more, and an odd size. Without convolutions, use the inner resampler alone."
            )
        self.num_latents = resampler.num_latents
        self.resampler = resampler
        self.num_layers = num_layers
        self.kernel_size = kernel_size
        self.width = width

    def _build(self, input_dim: int, output_dim: int) -> None:
        width = output_dim if self.width is None else self.width
        self.input_proj = nn.Sequential(nn.LayerNorm(input_dim), nn.Linear(input_dim, width))
        self.layers = nn.ModuleList(ConvNeXtLayer(width, self.kernel_size) for _ in range(self.num_layers))
        self.resampler.build(width, output_dim)

    def forward(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch latents width"]:
        """Apply the convolutions, then the resampler."""
        visual: Tensor = self.resampler(self._mix(embeddings))
        return visual

    def attention(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch latents tokens"]:
        """Return the attention of the inner resampler, whose inputs also depend on neighboring positions."""
        return self.resampler.attention(self._mix(embeddings))

    def _mix(self, embeddings: Tensor) -> Tensor:
        side = math.isqrt(embeddings.shape[1])
        if side * side != embeddings.shape[1]:
            raise ValueError(
                f"NeighborhoodResampler was given {embeddings.shape[1]} embeddings per image; expected those of a "
                "square grid. Use the inner resampler alone for this encoder."
            )
        grid = rearrange(self.input_proj(embeddings), "b (h w) c -> b c h w", h=side)
        for layer in self.layers:
            grid = layer(grid)
        mixed: Tensor = rearrange(grid, "b c h w -> b (h w) c")
        return mixed


class ConvNeXtLayer(nn.Module):
    """ConvNeXt block without layer scale: a depthwise convolution and an MLP, residual."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)

    def forward(self, grid: Float[Tensor, "batch width rows columns"]) -> Float[Tensor, "batch width rows columns"]:
        """Apply the layer."""
        channels_last = self.norm(rearrange(self.dwconv(grid), "b c h w -> b h w c"))
        mixed = self.pwconv2(gelu(self.pwconv1(channels_last)))
        output: Tensor = grid + rearrange(mixed, "b h w c -> b c h w")
        return output
