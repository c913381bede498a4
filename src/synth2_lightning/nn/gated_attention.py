"""Gated cross-attention, which conditions a frozen language model on visual tokens (Flamingo, arXiv 2204.14198)."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from synth2_lightning.nn.attention import CrossAttention
from synth2_lightning.nn.feedforward import FeedForward


class GatedCrossAttention(nn.Module):
    """Cross-attention from text to visual tokens and an MLP, each with a tanh gate (arXiv 2204.14198, figure 4).

    The gates are initialized to zero, so that the language model's outputs are unchanged at step 0. In addition to the
    paper, the gated outputs can be scaled: the hidden states of a pretrained model may be far larger than the outputs
    of randomly initialized layers, and a short training would not make up for it.

    Args:
        width: Width of the text's hidden states.
        visual_dim: Width of the visual tokens.
        num_heads: Attention heads.
        head_dim: Channels of a head.
        scale: Factor of the gated outputs: the typical magnitude of the text's hidden states.

    Example:
        >>> layer = GatedCrossAttention(width=32, visual_dim=16, num_heads=2, head_dim=16)
        >>> text = torch.randn(2, 5, 32)
        >>> torch.equal(layer(text, torch.randn(2, 3, 16)), text)
        True
    """

    def __init__(self, width: int, visual_dim: int, num_heads: int, head_dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.norm = nn.LayerNorm(width)
        self.attn = CrossAttention(width, visual_dim, num_heads, head_dim)
        self.attn_gate = nn.Parameter(torch.zeros(1))
        self.ff = FeedForward(width)
        self.ff_gate = nn.Parameter(torch.zeros(1))

    def forward(
        self,
        text: Float[Tensor, "rows length width"],
        visual: Float[Tensor, "images latents visual_dim"],
        keys_values: tuple[Tensor, Tensor] | None = None,
    ) -> Float[Tensor, "rows length width"]:
        """Return hidden states conditioned on the visual tokens.

        Args:
            text: Hidden states. The rows of an image follow each other; all images have the same number of rows.
            visual: Visual tokens.
            keys_values: Keys and values of the visual tokens by ``attn.keys_values``; computed by default.
        """
        keys, values = self.attn.keys_values(visual) if keys_values is None else keys_values
        # The precision of this trained layer may be higher than that of the frozen language model.
        states: Tensor = text.to(self.norm.weight.dtype)
        # One attention over all rows of an image.
        rows = rearrange(self.norm(states), "(b r) t w -> b (r t) w", b=len(keys))
        states = states + self.scale * self.attn_gate.tanh() * self.attn(rows, keys, values).view_as(states)
        states = states + self.scale * self.ff_gate.tanh() * self.ff(states)
        return states.to(text.dtype)

    def weights(
        self, text: Float[Tensor, "batch length width"], visual: Float[Tensor, "batch latents visual_dim"]
    ) -> Float[Tensor, "batch length latents"]:
        """Return attention weights, averaged over heads."""
        keys, _ = self.attn.keys_values(visual)
        return self.attn.weights(self.norm(text.to(self.norm.weight.dtype)), keys)
