"""Normalization in the precision of its input."""

from torch import Tensor, nn
from torch.nn import functional

from synth2_lightning.nn import cpu_kernels


class RMSNorm(nn.RMSNorm):
    """Torch's RMSNorm (Zhang and Sennrich, arXiv 1910.07467), with the gain cast to the precision of the input.

    Under autocast the input is in half precision and the gain is not; torch then warns and does not use its fused
    kernel. On a CPU, where torch has no fused kernel, it runs :func:`~synth2_lightning.nn.cpu_kernels.rms_norm`.

    Example:
        >>> import torch
        >>> RMSNorm(4)(torch.ones(2, 4, dtype=torch.bfloat16)).dtype
        torch.bfloat16
    """

    def forward(self, x: Tensor) -> Tensor:
        """Scale to a mean square of one."""
        gain = self.weight.to(x.dtype)
        if x.is_cpu:
            return cpu_kernels.rms_norm(x, gain, self.eps)
        return functional.rms_norm(x, self.normalized_shape, gain, self.eps)
