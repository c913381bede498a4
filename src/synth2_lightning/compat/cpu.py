"""Instructions of the CPU, and what torch does slowly on it, in all supported versions; checked with 2.7 and 2.15."""

import torch
from torch import Tensor

_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
MAX_SCORES = 2**16
"""Queries times keys of a head that are short in :func:`is_slow_attention`."""


def has_bfloat16_instructions() -> bool:
    """Return whether the CPU multiplies bfloat16 in hardware: AVX512_BF16, AMX, or Arm's BF16.

    ``torch.cpu.get_capabilities()`` is newer than torch 2.11. Older versions have private functions for x86 only, and
    none for AMX's bfloat16: all processors with AMX have it. They do not recognize Arm's BF16.

    Example:
        >>> has_bfloat16_instructions() in (True, False)
        True
    """
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in _BFLOAT16)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def is_slow_attention(queries: Tensor, keys: Tensor) -> bool:
    """Return whether torch's scaled dot-product attention is slow to train: short sequences in bfloat16 on a CPU.

    Its backward pass multiplies a few rows at a time. ``benchmarks/cpu_kernels.py`` measures it.

    Args:
        queries: Of shape (..., positions, channels).
        keys: Likewise.

    Example:
        >>> is_slow_attention(torch.zeros(4, 9, 16), torch.zeros(4, 9, 16))
        False
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else queries.dtype
    is_trained = queries.is_cpu and dtype is torch.bfloat16 and torch.is_grad_enabled()
    return is_trained and queries.shape[-2] * keys.shape[-2] <= MAX_SCORES
