"""Gated cross-attention, which conditions a frozen language model on visual tokens (Flamingo, arXiv 2204.14198)."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from synth2_lightning.nn.attention import attention_weights
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
        self.num_heads = num_heads
        self.scale = scale
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, num_heads * head_dim, bias=False)
        self.to_kv = nn.Linear(visual_dim, 2 * num_heads * head_dim, bias=False)
        self.to_out = nn.Linear(num_heads * head_dim, width, bias=False)
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.feedforward = FeedForward(width)
        self.feedforward_gate = nn.Parameter(torch.zeros(1))

    def keys_values(
        self, visual: Float[Tensor, "images queries visual_dim"]
    ) -> Float[Tensor, "two images heads queries channels"]:
        """Return keys and values of visual tokens, which :meth:`forward` accepts as a cache."""
        projected: Tensor = self.to_kv(visual)
        return rearrange(projected, "b q (two h c) -> two b h q c", two=2, h=self.num_heads)

    def forward(
        self,
        text: Float[Tensor, "rows length width"],
        visual: Float[Tensor, "images queries visual_dim"],
        keys_values: Float[Tensor, "two images heads queries channels"] | None = None,
    ) -> Float[Tensor, "rows length width"]:
        """Return hidden states conditioned on the visual tokens.

        Args:
            text: Hidden states. The rows of an image follow each other; all images have the same number of rows.
            visual: Visual tokens.
            keys_values: Output of :meth:`keys_values`; computed from ``visual`` by default.
        """
        keys_values = self.keys_values(visual) if keys_values is None else keys_values
        # The precision of this trained layer may be higher than that of the frozen language model.
        states: Tensor = text.to(self.norm.weight.dtype)
        states = states + self.scale * self.attention_gate.tanh() * self._attend(states, keys_values)
        states = states + self.scale * self.feedforward_gate.tanh() * self.feedforward(states)
        return states.to(text.dtype)

    def weights(
        self, text: Float[Tensor, "batch length width"], visual: Float[Tensor, "batch queries visual_dim"]
    ) -> Float[Tensor, "batch length queries"]:
        """Return attention weights, averaged over heads."""
        keys, _ = self.keys_values(visual)
        return attention_weights(self._queries(text.to(self.norm.weight.dtype), len(keys)), keys)

    def _attend(self, text: Tensor, keys_values: Tensor) -> Tensor:
        keys, values = keys_values
        heads = scaled_dot_product_attention(self._queries(text, len(keys)), keys, values)
        output: Tensor = self.to_out(rearrange(heads, "b h (r t) c -> (b r) t (h c)", t=text.shape[1]))
        return output

    def _queries(self, text: Tensor, num_images: int) -> Tensor:
        # One attention over all rows of an image.
        queries: Tensor = self.to_q(self.norm(text))
        return rearrange(queries, "(b r) t (h c) -> b h (r t) c", b=num_images, h=self.num_heads)
