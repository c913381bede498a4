"""Floating-point types that a device computes in hardware."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from synth2_lightning.compat.cpu import has_bfloat16_instructions

WeightType = Literal["auto", "float32", "bfloat16", "float16"]
"""Type of frozen weights; ``"auto"`` is bfloat16 if the GPU, or else the CPU, has instructions for it, else float32."""

_logger = logging.getLogger(__name__)


def computes_bfloat16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 instructions.

    Args:
        device: True for GPUs of compute capability 8.0 and newer, for CPUs with AVX512_BF16, AMX or Arm's BF16. Other
            CPUs emulate bfloat16. False for any other type of device.

    Example:
        >>> computes_bfloat16(torch.device("meta"))
        False
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and has_bfloat16_instructions()


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Compute in float32 within the context: without autocast, and on GPUs without TF32, which has 10 bits of mantissa.

    For features and distances of a codebook: rounded, they have other nearest codes.

    Args:
        device: Device of the computation.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16), full_float32(torch.device("cpu")):
        ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
        torch.float32
    """
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        if device.type == "cuda":
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        if device.type == "cuda":
            torch.set_float32_matmul_precision(products)
            torch.backends.cudnn.allow_tf32 = convolutions


def weight_dtype(name: WeightType, owner: str) -> torch.dtype:
    """Return the torch type of frozen weights; warn if this machine emulates it.

    Args:
        name: Name of the type.
        owner: Name of the network, for the warning.

    Example:
        >>> weight_dtype("float32", "T5")
        torch.float32
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "auto":
        return torch.bfloat16 if computes_bfloat16(device) else torch.float32
    if name == "bfloat16" and device.type == "cpu" and not computes_bfloat16(device):
        warn_of_emulation(f"{owner} has dtype=bfloat16", "dtype=auto")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def warn_of_emulation(setting: str, expected: str) -> None:
    """Warn that this CPU emulates bfloat16, with the measured factor.

    Args:
        setting: The setting that asks for bfloat16.
        expected: The setting that does not.

    Example:
        >>> warn_of_emulation("trainer.precision is bf16-mixed", "trainer.precision=auto")
    """
    _logger.warning(
        "%s, but this CPU has no bfloat16 instructions: a matrix product takes %.0f times as long as in float32. "
        "Expected %s, which uses bfloat16 only where it is fast.",
        setting,
        _time_product(torch.bfloat16) / _time_product(torch.float32),
        expected,
    )


def _time_product(dtype: torch.dtype) -> float:
    """Seconds of a product of two matrices of 512 rows and columns, the fastest of three."""
    factor = torch.ones(512, 512, dtype=dtype)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        factor @ factor
        seconds.append(time.perf_counter() - start)
    return min(seconds)
