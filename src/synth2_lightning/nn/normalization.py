"""Normalisation that keeps the precision of what it is given."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import rms_norm


class RMSNorm(nn.RMSNorm):
    """Torch's RMSNorm (Zhang and Sennrich, arXiv 1910.07467), its gain in the precision of the input.

    Under autocast the input is half and the gain is not; torch then leaves its fused kernel, with a warning. On a CPU
    torch has no fused kernel and goes through float32 copies of half precision, forward and backward; there it is
    computed in fewer passes and without copies, which has no second derivative.

    Example:
        >>> import torch
        >>> RMSNorm(4)(torch.ones(2, 4, dtype=torch.bfloat16)).dtype
        torch.bfloat16
    """

    def forward(self, x: Tensor) -> Tensor:
        """Scale to a mean square of one."""
        gain = self.weight.to(x.dtype)
        if not x.is_cpu:
            return rms_norm(x, self.normalized_shape, gain, self.eps)
        normed: Tensor = _FewPasses.apply(x, gain, self.eps)
        return normed


class _FewPasses(torch.autograd.Function):
    """``y = gain n`` with ``n = x / rms(x)``; ``dy/dx`` takes from a gradient what lies along n, and divides by rms."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float | None) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        mean_square = length.square() / x.shape[-1]
        inverse = (mean_square + (torch.finfo(wide).eps if eps is None else eps)).rsqrt().to(x.dtype)
        # Into contiguous memory, or attention's matmuls would copy heads once more.
        normed = torch.mul(x, inverse, out=x.new_empty(x.shape))
        ctx.save_for_backward(normed, gain, inverse)
        scaled: Tensor = normed * gain
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, gain, inverse = ctx.saved_tensors
        gain_slope = (gradient * normed).flatten(0, -2).sum(0)  # torch sums half precision in float32
        slope = gradient * gain
        along = (slope * normed).mean(-1, keepdim=True)
        return slope.addcmul_(normed, along, value=-1).mul_(inverse), gain_slope, None
