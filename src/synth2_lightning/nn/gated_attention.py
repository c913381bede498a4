"""The gated cross-attention of Flamingo: how a language model that stays as it is learns to look."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from synth2_lightning.nn.attention import attend, attention_weights
from synth2_lightning.nn.feedforward import FeedForward


class GatedCrossAttention(nn.Module):
    """Words attend to visual tokens behind tanh gates that start shut (Flamingo, arXiv 2204.14198, figure 4).

    Shut gates add zero, so that a language model says at step 0 what it said without pictures. Beyond the paper, what
    comes through a gate can be scaled: a pretrained model's hidden states may be far larger than what fresh layers
    give, and short training would end before anything was seen.

    Args:
        width: Width of the words' hidden states.
        visual_dim: Width of the visual tokens.
        num_heads: Attention heads.
        head_dim: Channels of a head.
        scale: Size of the words' hidden states.

    Example:
        >>> layer = GatedCrossAttention(width=32, visual_dim=16, num_heads=2, head_dim=16)
        >>> words = torch.randn(2, 5, 32)
        >>> torch.equal(layer(words, torch.randn(2, 3, 16)), words)
        True
    """

    def __init__(self, width: int, visual_dim: int, num_heads: int, head_dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = scale
        self.norm = nn.LayerNorm(width)
        self.to_queries = nn.Linear(width, num_heads * head_dim, bias=False)
        self.to_keys_values = nn.Linear(visual_dim, 2 * num_heads * head_dim, bias=False)
        self.to_output = nn.Linear(num_heads * head_dim, width, bias=False)
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.feedforward = FeedForward(width)
        self.feedforward_gate = nn.Parameter(torch.zeros(1))

    def read(
        self, visual: Float[Tensor, "pictures queries visual_dim"]
    ) -> Float[Tensor, "two pictures heads queries channels"]:
        """Make the keys and values of pictures: the same for all words, so that they can be kept between calls."""
        keys_values: Tensor = self.to_keys_values(visual)
        return rearrange(keys_values, "b q (two h c) -> two b h q c", two=2, h=self.num_heads)

    def forward(
        self,
        words: Float[Tensor, "rows length width"],
        visual: Float[Tensor, "pictures queries visual_dim"],
        keys_values: Float[Tensor, "two pictures heads queries channels"] | None = None,
    ) -> Float[Tensor, "rows length width"]:
        """Look.

        Args:
            words: Hidden states. Several rows in a row, of the same number each, may look at one picture.
            visual: Visual tokens.
            keys_values: What :meth:`read` made of them.
        """
        keys_values = self.read(visual) if keys_values is None else keys_values
        # The layer is learnt in its own precision, which may be finer than that of a frozen language model.
        states: Tensor = words.to(self.norm.weight.dtype)
        states = states + self.scale * self.attention_gate.tanh() * self._look(states, keys_values)
        states = states + self.scale * self.feedforward_gate.tanh() * self.feedforward(states)
        return states.to(words.dtype)

    def weights(
        self, words: Float[Tensor, "batch length width"], visual: Float[Tensor, "batch queries visual_dim"]
    ) -> Float[Tensor, "batch length queries"]:
        """Where words look: the mean over heads."""
        keys, _ = self.read(visual)
        return attention_weights(self._queries(words.to(self.norm.weight.dtype), len(keys)), keys)

    def _look(self, words: Tensor, keys_values: Tensor) -> Tensor:
        keys, values = keys_values
        read = attend(self._queries(words, len(keys)), keys, values)
        output: Tensor = self.to_output(rearrange(read, "b h (r t) c -> (b r) t (h c)", t=words.shape[1]))
        return output

    def _queries(self, words: Tensor, num_pictures: int) -> Tensor:
        # All words that look at one picture do so together.
        queries: Tensor = self.to_queries(self.norm(words))
        return rearrange(queries, "(b r) t (h c) -> b h (r t) c", b=num_pictures, h=self.num_heads)
