"""Scaled dot-product attention, by the fastest kernel for device and precision."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from synth2_lightning.nn.cpu_kernels import half_precision_attention


def attend(
    queries: Float[Tensor, "batch heads targets channels"],
    keys: Float[Tensor, "batch heads positions channels"],
    values: Float[Tensor, "batch heads positions channels"],
    mask: Bool[Tensor, "#batch #heads #targets positions"] | None = None,
) -> Float[Tensor, "batch heads targets channels"]:
    """Return softmax(Q K^T / sqrt(channels)) V (Vaswani et al., arXiv 1706.03762, equation 1).

    Runs torch's fused kernel, except in half precision on a CPU
    (:func:`~synth2_lightning.nn.cpu_kernels.half_precision_attention`).

    Args:
        queries: One per target.
        keys: One per position.
        values: One per position.
        mask: True where a target attends to a position; each target needs at least one.

    Example:
        >>> attend(torch.randn(2, 4, 3, 8), torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8)).shape
        torch.Size([2, 4, 3, 8])
    """
    if not queries.is_cpu or queries.dtype is torch.float32:
        return scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return half_precision_attention(queries, keys, values, mask)


def attention_weights(
    queries: Float[Tensor, "batch heads targets channels"], keys: Float[Tensor, "batch heads positions channels"]
) -> Float[Tensor, "batch targets positions"]:
    """Return softmax(Q K^T / sqrt(channels)), averaged over heads; rows sum to one.

    Args:
        queries: One per target.
        keys: One per position.

    Example:
        >>> attention_weights(torch.zeros(1, 2, 1, 8), torch.randn(1, 2, 4, 8))
        tensor([[[0.2500, 0.2500, 0.2500, 0.2500]]])
    """
    scores: Tensor = queries.float() * queries.shape[-1] ** -0.5 @ keys.float().transpose(-2, -1)
    return scores.softmax(-1).mean(1)
