"""Attention weights, for analysis."""

from jaxtyping import Float
from torch import Tensor


def attention_weights(
    queries: Float[Tensor, "batch heads targets channels"], keys: Float[Tensor, "batch heads positions channels"]
) -> Float[Tensor, "batch targets positions"]:
    """Return softmax(Q K^T / sqrt(channels)), averaged over heads; rows sum to one.

    Args:
        queries: One per target.
        keys: One per position.

    Example:
        >>> import torch
        >>> attention_weights(torch.zeros(1, 2, 1, 8), torch.randn(1, 2, 4, 8))
        tensor([[[0.2500, 0.2500, 0.2500, 0.2500]]])
    """
    scores: Tensor = queries.float() * queries.shape[-1] ** -0.5 @ keys.float().transpose(-2, -1)
    return scores.softmax(-1).mean(1)
