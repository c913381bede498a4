"""Multi-head attention."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from synth2_lightning.nn.cpu_kernels import attention
from synth2_lightning.nn.normalization import RMSNorm


class CrossAttention(nn.Module):
    """Multi-head attention to a context, without biases; keys and values are an argument, so that they can be cached.

    Args:
        width: Width of the inputs and outputs.
        context_dim: Width of the context.
        num_heads: Attention heads.
        head_dim: Channels of a head.
        qk_norm: Apply an RMSNorm to the queries and keys of every head (Henry et al., arXiv 2010.04245).

    Example:
        >>> import torch
        >>> attention, states = CrossAttention(32, 16, num_heads=2, head_dim=8), torch.randn(2, 3, 32)
        >>> keys, values = attention.keys_values(torch.randn(2, 5, 16))
        >>> attention(states, keys, values).shape, attention.weights(states, keys).shape
        (torch.Size([2, 3, 32]), torch.Size([2, 3, 5]))
    """

    def __init__(self, width: int, context_dim: int, num_heads: int, head_dim: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(width, num_heads * head_dim, bias=False)
        self.to_kv = nn.Linear(context_dim, 2 * num_heads * head_dim, bias=False)
        self.q_norm = RMSNorm(head_dim) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(head_dim) if qk_norm else nn.Identity()
        self.to_out = nn.Linear(num_heads * head_dim, width, bias=False)

    def keys_values(
        self, context: Float[Tensor, "batch positions dim"]
    ) -> tuple[Float[Tensor, "batch heads positions channels"], Float[Tensor, "batch heads positions channels"]]:
        """Return keys and values of a context."""
        keys, values = rearrange(self.to_kv(context), "b n (two h c) -> two b h n c", two=2, h=self.num_heads)
        return self.k_norm(keys), values

    def forward(
        self,
        states: Float[Tensor, "batch targets width"],
        keys: Float[Tensor, "contexts heads positions channels"],
        values: Float[Tensor, "contexts heads positions channels"],
        mask: Bool[Tensor, "contexts 1 1 positions"] | None = None,
    ) -> Float[Tensor, "batch targets width"]:
        """Return the attention output; positions where the mask is false are excluded.

        Keys and values may be of one context for all rows of the batch.
        """
        keys, values = (part.expand(len(states), -1, -1, -1) for part in (keys, values))
        return self.project_out(attention(self._queries(states), keys, values, mask))

    def project_out(self, heads: Float[Tensor, "batch heads targets channels"]) -> Float[Tensor, "batch targets width"]:
        """Concatenate the heads and project them to ``width``."""
        output: Tensor = self.to_out(rearrange(heads, "b h n c -> b n (h c)"))
        return output

    def weights(
        self, states: Float[Tensor, "batch targets width"], keys: Float[Tensor, "batch heads positions channels"]
    ) -> Float[Tensor, "batch targets positions"]:
        """Return attention weights in float32, averaged over heads, for analysis; rows sum to one."""
        queries = self._queries(states).float()
        with torch.autocast(queries.device.type, enabled=False):
            scores: Tensor = queries * queries.shape[-1] ** -0.5 @ keys.float().transpose(-2, -1)
            return scores.softmax(-1).mean(1)

    def _queries(self, states: Tensor) -> Tensor:
        queries: Tensor = self.q_norm(rearrange(self.to_q(states), "b n (h c) -> b h n c", h=self.num_heads))
        return queries


class KeyValueCache:
    """Keys and values of all tokens of a self-attention, some of which are replaced in later calls; without gradients.

    Example:
        >>> import torch
        >>> attention, states, cache = SelfAttention(32, num_heads=2), torch.randn(3, 5, 32), KeyValueCache()
        >>> with torch.no_grad():
        ...     output = attention(states, cache)
        ...     last = attention(states[:, 3:], cache, torch.tensor([[3, 4]] * 3))
        >>> torch.allclose(last, output[:, 3:], atol=1e-6)
        True
    """

    def __init__(self) -> None:
        self._kept: tuple[Tensor, ...] = ()

    def replace(
        self,
        keys: Float[Tensor, "batch heads tokens channels"],
        values: Float[Tensor, "batch heads tokens channels"],
        positions: Int[Tensor, "batch tokens"] | None = None,
    ) -> tuple[Float[Tensor, "batch heads all channels"], Float[Tensor, "batch heads all channels"]]:
        """Replace keys and values, and return those of all tokens.

        Args:
            keys: Of some tokens.
            values: Of the same tokens.
            positions: Distinct positions of these tokens; without it, they are all tokens.
        """
        if positions is None:
            self._kept = keys, values
            return keys, values
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        kept_keys, kept_values = self._kept
        for old, new in ((kept_keys, keys), (kept_values, values)):
            old.transpose(1, 2)[rows, positions] = new.transpose(1, 2)
        return kept_keys, kept_values

    def repeat(self, batch: int) -> None:
        """Repeat the keys and values of the only sequence, for a batch of sequences with equal tokens so far."""
        self._kept = tuple(kept.repeat(batch, 1, 1, 1) for kept in self._kept)


class SelfAttention(nn.Module):
    """Bidirectional multi-head self-attention without biases, with normalized queries and keys."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm = RMSNorm(width // num_heads)
        self.k_norm = RMSNorm(width // num_heads)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        states: Float[Tensor, "batch tokens width"],
        cache: KeyValueCache | None = None,
        positions: Int[Tensor, "batch tokens"] | None = None,
        num_outputs: int | None = None,
    ) -> Float[Tensor, "batch outputs width"]:
        """Return the attention output.

        Args:
            states: All tokens of a sequence; with ``positions``, some of them.
            cache: Receives the keys and values.
            positions: Positions of the tokens, which attend to all tokens in the cache.
            num_outputs: Return this many tokens, the first ones.
        """
        qkv = rearrange(self.to_qkv(states), "b n (three h c) -> three b h n c", three=3, h=self.num_heads)
        queries, keys, values = qkv
        keys = self.k_norm(keys)
        if cache is not None:
            keys, values = cache.replace(keys, values, positions)
        heads = attention(self.q_norm(queries[:, :, :num_outputs]), keys, values)
        output: Tensor = self.to_out(rearrange(heads, "b h n c -> b n (h c)"))
        return output


def select_tokens(
    values: Shaped[Tensor, "batch tokens *rest"], positions: Int[Tensor, "batch selected"]
) -> Shaped[Tensor, "batch selected *rest"]:
    """Index the second dimension by positions that differ from row to row.

    Example:
        >>> import torch
        >>> select_tokens(torch.tensor([[5, 6, 7], [8, 9, 10]]), torch.tensor([[2], [0]]))
        tensor([[7],
                [8]])
    """
    return values[torch.arange(len(values), device=values.device)[:, None], positions]
