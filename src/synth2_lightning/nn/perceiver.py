"""The Perceiver Resampler of Flamingo: learned queries read any number of image embeddings."""

from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from synth2_lightning.interfaces import Resampler
from synth2_lightning.nn.attention import attend, attention_weights
from synth2_lightning.nn.feedforward import FeedForward


class PerceiverResampler(Resampler):
    """Turn N image embeddings into Q visual tokens (Flamingo, arXiv 2204.14198, appendix A.1.1).

    In every layer the latents read the image embeddings *and themselves*: their own keys and values are appended to
    the image's. Image embeddings of any encoder get a LayerNorm and two linear maps with GELU between them first, and
    the latents a LayerNorm and a projection last, so that neither side's width binds the inner one. Two maps are a
    choice, meant for the codes of a VQ-GAN, which may lie in a few dimensions only; it was not compared with one. The
    feed-forward layers use GELU, as open_flamingo and flamingo-pytorch do; the paper has the squared ReLU.

    Args:
        input_dim: Width of the image embeddings.
        output_dim: Width of the visual tokens.
        num_queries: Q, visual tokens per picture.
        depth: Layers.
        num_heads: Attention heads.
        head_dim: Channels of a head.
        width: Inner width; ``None`` takes ``output_dim``.
        num_positions: Image embeddings per picture, to learn where each came from; 0 for encoders that tell the
            position themselves, or for pictures of several sizes.
        dropout: Share of a layer's output that is dropped in training.
        checkpoint_activations: Compute the layers again in the backward pass rather than keep what they computed.

    Raises:
        ValueError: If a count is below one, or a picture has not ``num_positions`` embeddings.

    Example:
        >>> resampler = PerceiverResampler(320, 64, num_queries=4, depth=1, num_heads=2, num_positions=49)
        >>> resampler(torch.randn(2, 49, 320)).shape
        torch.Size([2, 4, 64])
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        num_queries: int = 64,
        depth: int = 6,
        num_heads: int = 8,
        head_dim: int = 64,
        width: int | None = None,
        num_positions: int = 0,
        dropout: float = 0.0,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        if min(num_queries, depth) < 1:
            raise ValueError(
                f"PerceiverResampler was given num_queries={num_queries} and depth={depth}; expected 1 or more of both."
            )
        width = output_dim if width is None else width
        self.num_queries = num_queries
        self.num_positions = num_positions
        self.checkpoint_activations = checkpoint_activations
        self.input = nn.Sequential(
            nn.LayerNorm(input_dim), nn.Linear(input_dim, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        # As large as what the maps give at the start: from zero, places are told apart late.
        self.positions = nn.Parameter(0.3 * torch.randn(num_positions, width))
        self.latents = nn.Parameter(torch.randn(num_queries, width))
        self.layers = nn.ModuleList(PerceiverLayer(width, num_heads, head_dim, dropout) for _ in range(depth))
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, output_dim))

    def forward(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch queries width"]:
        """Resample."""
        image = self._read(embeddings)
        latents = self.latents.expand(len(image), -1, -1)
        for layer in self.layers:
            if self.checkpoint_activations and torch.is_grad_enabled():
                latents = checkpoint(layer, latents, image, use_reentrant=False)
            else:
                latents = layer(latents, image)
        output: Tensor = self.output(latents)
        return output

    def attention(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch queries tokens"]:
        """Follow the attention of all layers back to the image (attention rollout, arXiv 2005.00928).

        Half of a latent is what it was before a layer, half is what it reads there: of the image, and of latents that
        have read the image before. A latent knows nothing of the image at first, so rows are scaled to sum to one.
        """
        image = self._read(embeddings)
        latents = self.latents.expand(len(image), -1, -1)
        seen = image.new_zeros(len(image), self.num_queries, image.shape[1])
        for layer in self.layers:
            weights = cast(PerceiverLayer, layer).attention.weights(latents, image)
            of_image, of_latents = weights[..., : image.shape[1]], weights[..., image.shape[1] :]
            seen = (seen + of_image + of_latents @ seen) / 2
            latents = layer(latents, image)
        return seen / seen.sum(-1, keepdim=True)

    def _read(self, embeddings: Tensor) -> Tensor:
        image: Tensor = self.input(embeddings)
        return image + self._positions_of(image) if self.num_positions else image

    def _positions_of(self, image: Tensor) -> Tensor:
        if image.shape[1] != self.num_positions:
            raise ValueError(
                f"The resampler learns num_positions={self.num_positions} positions, but was given {image.shape[1]} "
                "embeddings per picture. Set num_positions to the encoder's num_tokens, or to 0 to learn none."
            )
        return self.positions


class PerceiverLayer(nn.Module):
    """Attention of the latents to image and latents, then a feed-forward layer, both residual."""

    def __init__(self, width: int, num_heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = PerceiverAttention(width, num_heads, head_dim)
        self.feedforward = FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, latents: Float[Tensor, "batch queries width"], image: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch queries width"]:
        """Refine the latents."""
        latents = latents + self.dropout(self.attention(latents, image))
        refined: Tensor = latents + self.dropout(self.feedforward(latents))
        return refined


class PerceiverAttention(nn.Module):
    """Attention whose queries are latents, and whose keys and values are image embeddings and latents."""

    def __init__(self, width: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.image_norm = nn.LayerNorm(width)
        self.latent_norm = nn.LayerNorm(width)
        self.to_queries = nn.Linear(width, num_heads * head_dim, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * num_heads * head_dim, bias=False)
        self.to_output = nn.Linear(num_heads * head_dim, width, bias=False)

    def forward(
        self, latents: Float[Tensor, "batch queries width"], image: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch queries width"]:
        """Read."""
        queries, keys, values = self._project(latents, image)
        output: Tensor = self.to_output(rearrange(attend(queries, keys, values), "b h q c -> b q (h c)"))
        return output

    def weights(
        self, latents: Float[Tensor, "batch queries width"], image: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch queries positions"]:
        """Where the latents look: first at the image, then at themselves; the mean over heads."""
        queries, keys, _ = self._project(latents, image)
        return attention_weights(queries, keys)

    def _project(self, latents: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        latents = self.latent_norm(latents)
        queries = rearrange(self.to_queries(latents), "b q (h c) -> b h q c", h=self.num_heads)
        keys_values = self.to_keys_values(torch.cat([self.image_norm(image), latents], dim=1))
        keys, values = rearrange(keys_values, "b n (two h c) -> two b h n c", two=2, h=self.num_heads)
        return queries, keys, values
