"""Operations that are faster than torch's on CPUs, each measured by ``benchmarks/cpu_kernels.py``.

CPU time of torch's operation over ours, one thread of an Intel Xeon with AMX, torch 2.15: ``attention`` 4.0 to images
and 6.0 to texts, ``rms_norm`` 3.7 in float32 and 3.2 in bfloat16, ``negative_log_likelihood`` 1.7 and 2.6, chunks of
``FROZEN_CHUNK`` images 2.3.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

FROZEN_CHUNK = 2
"""Images per forward pass of a frozen network on a CPU: the feature maps of larger batches exceed the cache."""
_MAX_SCORES = 2**16
"""Queries times keys of a head up to which torch's attention is slow to train in bfloat16."""


def attention(
    queries: Float[Tensor, "batch heads targets channels"],
    keys: Float[Tensor, "batch heads positions channels"],
    values: Float[Tensor, "batch heads positions channels"],
    mask: Bool[Tensor, "masks 1 1 positions"] | None = None,
) -> Float[Tensor, "batch heads targets channels"]:
    """Return scaled dot-product attention; positions where the mask is false are excluded.

    Short sequences that are trained in bfloat16 on a CPU have all scores computed at once, and rounded to bfloat16:
    the backward pass of torch's operation multiplies a few rows at a time.

    Example:
        >>> attention(torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 2, 2), torch.tensor([[[[1.0, 0.0], [3.0, 0.0]]]]))
        tensor([[[[2., 0.]]]])
    """
    if not _is_slow_attention(queries, keys):
        return scaled_dot_product_attention(queries, keys, values, mask)
    scores: Tensor = queries * queries.shape[-1] ** -0.5 @ keys.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1) @ values


def rms_norm(x: Float[Tensor, "*shape"], gain: Float[Tensor, " width"], eps: float | None = None) -> Tensor:
    """Return RMS normalization over the last dimension, without float32 copies; it has no second derivative.

    Example:
        >>> rms_norm(torch.tensor([[3.0, 3.0]]), torch.ones(2)).round(decimals=3)
        tensor([[1., 1.]])
    """
    if torch.is_grad_enabled():
        scaled: Tensor = _RMSNorm.apply(x, gain, eps)
        return scaled
    normed, _ = _normalize(x, eps)
    return normed.mul_(gain)


def negative_log_likelihood(
    logits: Float[Tensor, "targets vocabulary"], targets: Int[Tensor, " targets"]
) -> Float[Tensor, " targets"]:
    """Return the negative log-likelihood (nats) of each target, computed in float32.

    Equivalent to ``cross_entropy(logits.float(), targets, reduction="none")``, but both passes process a few rows at a
    time, so that there is no float32 copy of the logits. On GPUs this saves memory.

    Example:
        >>> negative_log_likelihood(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor([1.3863, 1.3863])
    """
    losses: Tensor = _NegativeLogLikelihood.apply(logits, targets)
    return losses


def _is_slow_attention(queries: Tensor, keys: Tensor) -> bool:
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else queries.dtype
    is_trained = queries.is_cpu and dtype is torch.bfloat16 and torch.is_grad_enabled()
    return is_trained and queries.shape[-2] * keys.shape[-2] <= _MAX_SCORES


class _RMSNorm(torch.autograd.Function):
    """``y = gain n`` with ``n = x / rms(x)``; ``dy/dx`` removes the component along n and divides by the rms."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float | None) -> Tensor:
        normed, inverse = _normalize(x, eps)
        ctx.save_for_backward(normed, gain, inverse)
        scaled: Tensor = normed * gain
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, gain, inverse = ctx.saved_tensors
        gain_slope = (gradient * normed).flatten(0, -2).sum(0)  # torch accumulates half precision in float32
        slope = gradient * gain
        along = (slope * normed).mean(-1, keepdim=True)
        return slope.addcmul_(normed, along, value=-1).mul_(inverse), gain_slope, None


def _normalize(x: Tensor, eps: float | None) -> tuple[Tensor, Tensor]:
    """Return ``x`` over its rms, and the inverse of the rms."""
    wide = torch.promote_types(x.dtype, torch.float32)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
    mean_square = length.square() / x.shape[-1]
    inverse = (mean_square + (torch.finfo(wide).eps if eps is None else eps)).rsqrt().to(x.dtype)
    # Contiguous output: the matmuls of attention would copy the heads otherwise.
    return torch.mul(x, inverse, out=x.new_empty(x.shape)), inverse


class _NegativeLogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        normalizers = torch.cat([logits[rows].float().logsumexp(1) for rows in _slices(logits)])
        ctx.save_for_backward(logits, targets, normalizers)
        return normalizers - logits.gather(1, targets[:, None]).squeeze(1).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logits, targets, normalizers = ctx.saved_tensors
        result = torch.empty_like(logits)
        for rows in _slices(logits):
            # d(loss) / d(logits) = softmax(logits) - one at the target
            slope = (logits[rows].float() - normalizers[rows, None]).exp_()
            slope.scatter_add_(1, targets[rows, None], slope.new_full((len(slope), 1), -1.0))
            result[rows] = slope.mul_(gradients[0][rows, None])
        return result, None


def _slices(logits: Tensor) -> Iterator[slice]:
    # Small enough for a CPU's cache; on a GPU large enough for few launches.
    size = max(1, (2**20 if logits.is_cpu else 2**26) // logits.shape[1])
    return (slice(start, start + size) for start in range(0, max(1, len(logits)), size))
