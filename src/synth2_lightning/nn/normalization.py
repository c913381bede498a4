"""Normalisation that keeps the precision of what it is given."""

from torch import Tensor, nn
from torch.nn.functional import rms_norm


class RMSNorm(nn.RMSNorm):
    """Torch's RMSNorm (Zhang and Sennrich, arXiv 1910.07467), its gain in the precision of the input.

    Under autocast the input is half and the gain is not; torch then leaves its fused kernel, with a warning.

    Example:
        >>> import torch
        >>> RMSNorm(4)(torch.ones(2, 4, dtype=torch.bfloat16)).dtype
        torch.bfloat16
    """

    def forward(self, x: Tensor) -> Tensor:
        """Scale to a mean square of one."""
        return rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)
