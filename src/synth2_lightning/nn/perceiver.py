"""The Perceiver Resampler of Flamingo: learned queries read any number of image embeddings."""

from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from synth2_lightning.interfaces import Resampler
from synth2_lightning.nn.attention import attention_weights
from synth2_lightning.nn.feedforward import FeedForward


class PerceiverResampler(Resampler):
    """Maps N image embeddings to Q visual tokens (Flamingo, arXiv 2204.14198, appendix A.1.1).

    In every layer the latents attend to the image embeddings and to themselves: the keys and values of the latents are
    appended to those of the image. Image embeddings pass a LayerNorm and a two-layer GELU MLP first, and the latents
    pass a LayerNorm and a projection last, so that the inner width is independent of both sides. The MLP is meant for
    codes of a VQ-GAN, which may span few dimensions; it was not compared with a linear map. The feed-forward layers use
    GELU, as open_flamingo and flamingo-pytorch do; the paper uses the squared ReLU.

    Args:
        input_dim: Width of the image embeddings.
        output_dim: Width of the visual tokens.
        num_latents: Q, visual tokens per image.
        depth: Layers.
        num_heads: Attention heads.
        head_dim: Channels of a head.
        width: Inner width; ``output_dim`` by default.
        num_positions: Number of learned position embeddings, equal to the encoder's ``num_tokens``; 0 for encoders
            whose embeddings contain the position, or for images of several sizes.
        dropout: Dropout probability of the output of each sublayer.
        checkpoint_activations: Recompute the layers in the backward pass instead of storing their activations.

    Raises:
        ValueError: If a count is below one, or the number of embeddings is not ``num_positions``.

    Example:
        >>> resampler = PerceiverResampler(320, 64, num_latents=4, depth=1, num_heads=2, num_positions=49)
        >>> resampler(torch.randn(2, 49, 320)).shape
        torch.Size([2, 4, 64])
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        num_latents: int = 64,
        depth: int = 6,
        num_heads: int = 8,
        head_dim: int = 64,
        width: int | None = None,
        num_positions: int = 0,
        dropout: float = 0.0,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        if min(num_latents, depth) < 1:
            raise ValueError(
                f"PerceiverResampler was given num_latents={num_latents} and depth={depth}; expected 1 or more of both."
            )
        width = output_dim if width is None else width
        self.num_latents = num_latents
        self.num_positions = num_positions
        self.checkpoint_activations = checkpoint_activations
        self.input = nn.Sequential(
            nn.LayerNorm(input_dim), nn.Linear(input_dim, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        # The magnitude of the MLP's outputs at initialization: positions initialized to zero are learned late.
        self.positions = nn.Parameter(0.3 * torch.randn(num_positions, width))
        self.latents = nn.Parameter(torch.randn(num_latents, width))
        self.layers = nn.ModuleList(PerceiverLayer(width, num_heads, head_dim, dropout) for _ in range(depth))
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, output_dim))

    def forward(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch queries width"]:
        """Return visual tokens."""
        image = self._project(embeddings)
        latents = self.latents.expand(len(image), -1, -1)
        for layer in self.layers:
            if self.checkpoint_activations and torch.is_grad_enabled():
                latents = checkpoint(layer, latents, image, use_reentrant=False)
            else:
                latents = layer(latents, image)
        output: Tensor = self.output(latents)
        return output

    def attention(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch queries tokens"]:
        """Return attention rollout over all layers (Abnar and Zuidema, arXiv 2005.00928); rows sum to one.

        The residual connection counts as half of a layer's output. The other half is attention to the image and to
        latents, which depend on the image through the previous layers. The latents of the first layer do not depend on
        the image, so rows are rescaled to sum to one.
        """
        image = self._project(embeddings)
        latents = self.latents.expand(len(image), -1, -1)
        rollout = image.new_zeros(len(image), self.num_latents, image.shape[1])
        for layer in self.layers:
            weights = cast(PerceiverLayer, layer).attention.weights(latents, image)
            of_image, of_latents = weights[..., : image.shape[1]], weights[..., image.shape[1] :]
            rollout = (rollout + of_image + of_latents @ rollout) / 2
            latents = layer(latents, image)
        return rollout / rollout.sum(-1, keepdim=True)

    def _project(self, embeddings: Tensor) -> Tensor:
        image: Tensor = self.input(embeddings)
        return image + self._positions_of(image) if self.num_positions else image

    def _positions_of(self, image: Tensor) -> Tensor:
        if image.shape[1] != self.num_positions:
            raise ValueError(
                f"The resampler has num_positions={self.num_positions} position embeddings, but was given "
                f"{image.shape[1]} image embeddings. Set num_positions to the encoder's num_tokens, or to 0 for none."
            )
        return self.positions


class PerceiverLayer(nn.Module):
    """Attention of the latents to image embeddings and latents, and an MLP, both residual."""

    def __init__(self, width: int, num_heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = PerceiverAttention(width, num_heads, head_dim)
        self.feedforward = FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, latents: Float[Tensor, "batch queries width"], image: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch queries width"]:
        """Apply the layer."""
        latents = latents + self.dropout(self.attention(latents, image))
        output: Tensor = latents + self.dropout(self.feedforward(latents))
        return output


class PerceiverAttention(nn.Module):
    """Attention with latents as queries, and image embeddings and latents as keys and values."""

    def __init__(self, width: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.image_norm = nn.LayerNorm(width)
        self.latent_norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, num_heads * head_dim, bias=False)
        self.to_kv = nn.Linear(width, 2 * num_heads * head_dim, bias=False)
        self.to_out = nn.Linear(num_heads * head_dim, width, bias=False)

    def forward(
        self, latents: Float[Tensor, "batch queries width"], image: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch queries width"]:
        """Return the attention output."""
        queries, keys, values = self._project(latents, image)
        heads = scaled_dot_product_attention(queries, keys, values)
        output: Tensor = self.to_out(rearrange(heads, "b h q c -> b q (h c)"))
        return output

    def weights(
        self, latents: Float[Tensor, "batch queries width"], image: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch queries positions"]:
        """Return attention weights, averaged over heads; positions are the image embeddings, then the latents."""
        queries, keys, _ = self._project(latents, image)
        return attention_weights(queries, keys)

    def _project(self, latents: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        latents = self.latent_norm(latents)
        queries = rearrange(self.to_q(latents), "b q (h c) -> b h q c", h=self.num_heads)
        keys_values = self.to_kv(torch.cat([self.image_norm(image), latents], dim=1))
        keys, values = rearrange(keys_values, "b n (two h c) -> two b h n c", two=2, h=self.num_heads)
        return queries, keys, values
