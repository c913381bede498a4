"""Scaled dot-product attention by the kernel that is quickest where it runs."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attend(
    queries: Float[Tensor, "batch heads targets channels"],
    keys: Float[Tensor, "batch heads positions channels"],
    values: Float[Tensor, "batch heads positions channels"],
    mask: Bool[Tensor, "#batch #heads #targets positions"] | None = None,
) -> Float[Tensor, "batch heads targets channels"]:
    """Attend by softmax(Q K^T / sqrt(channels)) V (Vaswani et al., arXiv 1706.03762, equation 1).

    Torch's fused kernel serves GPUs, and float32 on CPUs. In half precision on a CPU its backward pass is slower
    than three plain operations at the small sizes of captioning, so those run there.

    Args:
        queries: One per target.
        keys: One per position to look at.
        values: What is read there.
        mask: True where a target may look; every target must see at least one position.

    Example:
        >>> attend(torch.randn(2, 4, 3, 8), torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8)).shape
        torch.Size([2, 4, 3, 8])
    """
    if not queries.is_cpu or queries.dtype is torch.float32:
        return scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    scores: Tensor = queries * queries.shape[-1] ** -0.5 @ keys.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1).to(values.dtype)
    return weights @ values


def attention_weights(
    queries: Float[Tensor, "batch heads targets channels"], keys: Float[Tensor, "batch heads positions channels"]
) -> Float[Tensor, "batch targets positions"]:
    """Where targets look: softmax(Q K^T / sqrt(channels)), the mean over heads; rows sum to one.

    Args:
        queries: One per target.
        keys: One per position to look at.

    Example:
        >>> attention_weights(torch.zeros(1, 2, 1, 8), torch.randn(1, 2, 4, 8))
        tensor([[[0.2500, 0.2500, 0.2500, 0.2500]]])
    """
    scores: Tensor = queries.float() * queries.shape[-1] ** -0.5 @ keys.float().transpose(-2, -1)
    return scores.softmax(-1).mean(1)
