"""Image embeddings read their neighbours on the grid before a resampler reads them."""

import math

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from synth2_lightning.interfaces import Resampler, ResamplerFactory


class NeighbourhoodResampler(Resampler):
    """A resampler behind layers of ConvNeXt (arXiv 2201.03545), for embeddings that know little beyond their place.

    A latent of a Perceiver adds up what it reads, so what only several codes of a VQ-GAN say together, such as an
    outline, it learns late. That connectors with convolutions keep such local context is from Honeybee (arXiv
    2312.06742), whose abstractor pools; here the grid keeps its size, and any resampler may follow.

    Args:
        input_dim: Width of the image embeddings, which come from a square grid, row by row.
        output_dim: Width of the visual tokens.
        resampler: Factory of what follows, called with ``width`` and ``output_dim``.
        num_layers: ConvNeXt layers; each lets an embedding see ``kernel_size // 2`` places further.
        kernel_size: Side of a neighbourhood, odd.
        width: Inner width; ``None`` takes ``output_dim``.

    Raises:
        ValueError: If there is no layer, ``kernel_size`` is even, or a picture's embeddings fill no square.

    Example:
        >>> import torch
        >>> from synth2_lightning.nn.perceiver import PerceiverResampler
        >>> def perceiver(input_dim: int, output_dim: int) -> Resampler:
        ...     return PerceiverResampler(input_dim, output_dim, num_queries=4, depth=1, num_heads=2)
        >>> NeighbourhoodResampler(64, 32, perceiver, num_layers=1)(torch.randn(2, 49, 64)).shape
        torch.Size([2, 4, 32])
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        resampler: ResamplerFactory,
        num_layers: int = 2,
        kernel_size: int = 3,
        width: int | None = None,
    ) -> None:
        super().__init__()
        if num_layers < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"NeighbourhoodResampler was given num_layers={num_layers} and kernel_size={kernel_size}; expected one "
                "layer or more, and an odd size. Without neighbours, use the inner resampler alone."
            )
        width = output_dim if width is None else width
        self.input = nn.Sequential(nn.LayerNorm(input_dim), nn.Linear(input_dim, width))
        self.layers = nn.ModuleList(ConvNeXtLayer(width, kernel_size) for _ in range(num_layers))
        self.resampler = resampler(width, output_dim)
        self.num_queries = self.resampler.num_queries

    def forward(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch queries width"]:
        """Read the neighbours, then resample."""
        visual: Tensor = self.resampler(self._mix(embeddings))
        return visual

    def attention(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch queries tokens"]:
        """Say where the inner resampler looks; what it finds there knows a few neighbours, too."""
        return self.resampler.attention(self._mix(embeddings))

    def _mix(self, embeddings: Tensor) -> Tensor:
        side = math.isqrt(embeddings.shape[1])
        if side * side != embeddings.shape[1]:
            raise ValueError(
                f"NeighbourhoodResampler was given {embeddings.shape[1]} embeddings per picture; expected those of a "
                "square grid. Use the inner resampler alone for this encoder."
            )
        grid = rearrange(self.input(embeddings), "b (h w) c -> b c h w", h=side)
        for layer in self.layers:
            grid = layer(grid)
        mixed: Tensor = rearrange(grid, "b c h w -> b (h w) c")
        return mixed


class ConvNeXtLayer(nn.Module):
    """A convolution of each channel by itself, then a feed-forward layer, residual; without scales of its own."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, grid: Float[Tensor, "batch width rows columns"]) -> Float[Tensor, "batch width rows columns"]:
        """Read the neighbours."""
        read = rearrange(self.convolution(grid), "b c h w -> b h w c")
        refined: Tensor = grid + rearrange(self.feedforward(read), "b h w c -> b c h w")
        return refined
