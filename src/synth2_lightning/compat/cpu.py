"""Instructions of the CPU, in all supported versions of torch; checked with 2.7 and 2.15."""

import torch

_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")


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
