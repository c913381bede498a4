"""The trainer's precision, selected by the hardware."""

import os
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from synth2_lightning.io.precision import computes_bfloat16, warn_of_emulation

Resolved = Literal["32-true", "bf16-mixed", "16-mixed"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]


class HardwareTrainer(Trainer):
    """Lightning's trainer, with ``precision="auto"``.

    Args:
        args: Positional arguments of Lightning's trainer.
        precision: ``"auto"`` is ``"bf16-mixed"`` on devices with bfloat16 instructions, and ``"32-true"`` on others.
            Lightning's other precisions would cast frozen networks and codebooks. On GPUs, products in float32 use
            TF32, except those of codebooks.
        kwargs: Other arguments of Lightning's trainer.
    """

    def __init__(self, *args: Any, precision: Precision = "auto", **kwargs: Any) -> None:
        accelerator = kwargs.get("accelerator", "auto")
        if _uses_gpu(accelerator):
            torch.set_float32_matmul_precision("high")
        super().__init__(*args, precision=resolve_precision(precision, accelerator), **kwargs)


def resolve_precision(precision: Precision, accelerator: str) -> Resolved:
    """Return a precision of Lightning's trainer, and log what ``"auto"`` selects.

    Args:
        precision: Setting of the trainer. A CPU that emulates ``"bf16-mixed"`` is warned of.
        accelerator: Setting of the trainer.

    Example:
        >>> resolve_precision("32-true", "cpu")
        '32-true'
    """
    uses_gpu = _uses_gpu(accelerator)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if uses_gpu else torch.device("cpu")
    is_fast = computes_bfloat16(device)
    if precision == "auto":
        resolved: Resolved = "bf16-mixed" if is_fast else "32-true"
        kind, has = "GPU" if uses_gpu else "CPU", "has" if is_fast else "has no"
        rank_zero_info(f"Precision {resolved}: this {kind} {has} bfloat16 instructions.")
        return resolved
    if precision == "bf16-mixed" and not is_fast and device.type == "cpu":
        warn_of_emulation("trainer.precision is bf16-mixed", "auto")
    return precision


def _uses_gpu(accelerator: str) -> bool:
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
