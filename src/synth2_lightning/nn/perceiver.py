"""The Perceiver Resampler of Flamingo: learned latents attend to any number of image embeddings."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from synth2_lightning.interfaces import Resampler
from synth2_lightning.nn.attention import CrossAttention
from synth2_lightning.nn.feedforward import FeedForward


class PerceiverResampler(Resampler):
    """Maps image embeddings to a fixed number of visual tokens (Flamingo, arXiv 2204.14198, appendix A.1.1).

    In every layer the latents attend to the image embeddings and to themselves: the keys and values of the latents are
    appended to those of the image. Image embeddings pass a LayerNorm and a two-layer GELU MLP first, and the latents
    pass a LayerNorm and a projection last, so that the inner width is independent of both sides. The MLP is meant for
    codes of a VQ-GAN, which may span few dimensions; it was not compared with a linear map. The feed-forward layers use
    GELU, as open_flamingo and flamingo-pytorch do; the paper uses the squared ReLU.

    Args:
        num_latents: Visual tokens per image.
        depth: Layers.
        num_heads: Attention heads.
        head_dim: Channels of a head.
        width: Inner width; that of the visual tokens by default.
        num_positions: Number of learned position embeddings, equal to the encoder's ``num_tokens``; 0 for encoders
            whose embeddings contain the position, or for images of several sizes.
        dropout: Dropout probability of the output of each sublayer.
        checkpoint_activations: Recompute the layers in the backward pass instead of storing their activations.

    Raises:
        ValueError: If ``num_latents`` or ``depth`` is below one, or the number of embeddings is not ``num_positions``.

    Example:
        >>> resampler = PerceiverResampler(num_latents=4, depth=1, num_heads=2, num_positions=49)
        >>> resampler.build(input_dim=320, output_dim=64)(torch.randn(2, 49, 320)).shape
        torch.Size([2, 4, 64])
    """

    position_embeddings: nn.Parameter | None

    def __init__(
        self,
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
        self.num_latents = num_latents
        self.depth = depth
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.width = width
        self.num_positions = num_positions
        self.dropout = dropout
        self.checkpoint_activations = checkpoint_activations

    def _build(self, input_dim: int, output_dim: int) -> None:
        width = output_dim if self.width is None else self.width
        self.input_proj = nn.Sequential(
            nn.LayerNorm(input_dim), nn.Linear(input_dim, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        # The magnitude of the MLP's outputs at initialization: positions initialized to zero are learned late. None are
        # no parameter, not an empty one: DDP waits for a gradient of every parameter.
        positions = nn.Parameter(0.3 * torch.randn(self.num_positions, width)) if self.num_positions else None
        self.register_parameter("position_embeddings", positions)
        self.latents = nn.Parameter(torch.randn(self.num_latents, width))
        self.layers = nn.ModuleList(
            PerceiverLayer(width, self.num_heads, self.head_dim, self.dropout) for _ in range(self.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.output_proj = nn.Linear(width, output_dim)

    def forward(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch latents width"]:
        """Return visual tokens."""
        image = self._project(embeddings)
        latents = self.latents.expand(len(image), -1, -1)
        for layer in self.layers:
            if self.checkpoint_activations and torch.is_grad_enabled():
                latents = checkpoint(layer, latents, image, use_reentrant=False)
            else:
                latents = layer(latents, image)
        visual: Tensor = self.output_proj(self.norm(latents))
        return visual

    def attention(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch latents tokens"]:
        """Return attention rollout over all layers (Abnar and Zuidema, arXiv 2005.00928); rows sum to one.

        The residual connection counts as half of a layer's output. The other half is attention to the image and to
        latents, which depend on the image through the previous layers. The latents of the first layer do not depend on
        the image, so rows are rescaled to sum to one.
        """
        image = self._project(embeddings)
        latents = self.latents.expand(len(image), -1, -1)
        rollout = image.new_zeros(len(image), self.num_latents, image.shape[1], dtype=torch.float32)
        for layer in self.layers:
            weights = cast(PerceiverLayer, layer).weights(latents, image)
            of_image, of_latents = weights[..., : image.shape[1]], weights[..., image.shape[1] :]
            rollout = (rollout + of_image + of_latents @ rollout) / 2
            latents = layer(latents, image)
        return rollout / rollout.sum(-1, keepdim=True)

    def _project(self, embeddings: Tensor) -> Tensor:
        image: Tensor = self.input_proj(embeddings)
        if self.position_embeddings is None:
            return image
        if image.shape[1] != self.num_positions:
            raise ValueError(
                f"The resampler has num_positions={self.num_positions} position embeddings, but was given "
                f"{image.shape[1]} image embeddings. Set num_positions to the encoder's num_tokens, or to 0 for none."
            )
        return image + self.position_embeddings


class PerceiverLayer(nn.Module):
    """Attention of the latents to image embeddings and latents, and an MLP, both residual."""

    def __init__(self, width: int, num_heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm_media = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.attn = CrossAttention(width, width, num_heads, head_dim)
        self.ff = FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, latents: Float[Tensor, "batch latents width"], image: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch latents width"]:
        """Apply the layer."""
        normed, keys, values = self._project(latents, image)
        latents = latents + self.dropout(self.attn(normed, keys, values))
        output: Tensor = latents + self.dropout(self.ff(latents))
        return output

    def weights(
        self, latents: Float[Tensor, "batch latents width"], image: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch latents positions"]:
        """Return attention weights, averaged over heads; positions are the image embeddings, then the latents."""
        normed, keys, _ = self._project(latents, image)
        return self.attn.weights(normed, keys)

    def _project(self, latents: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed = self.norm_latents(latents)
        return normed, *self.attn.keys_values(torch.cat([self.norm_media(image), normed], dim=1))
