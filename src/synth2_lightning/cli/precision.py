"""The trainer's precision, selected by the hardware."""

import os
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities import rank_zero_info

from synth2_lightning.callbacks.component_summary import ComponentSummaryCallback
from synth2_lightning.io.precision import computes_bfloat16, warn_of_emulation
from synth2_lightning.training.precision import SupportedPrecision

Precision = Literal["auto", SupportedPrecision]


class HardwareTrainer(Trainer):
    """Lightning's trainer, with ``precision="auto"`` and a summary of components.

    Args:
        args: Positional arguments of Lightning's trainer.
        precision: ``"auto"`` is ``"bf16-mixed"`` on devices with bfloat16 instructions, and ``"32-true"`` on others.
            Lightning's other precisions would cast frozen networks and codebooks. On GPUs, products in float32 use
            TF32, except those of codebooks.
        callbacks: Those of Lightning's trainer.
        enable_model_summary: Add :class:`ComponentSummaryCallback`, unless the callbacks contain a summary.
        limit_train_batches: Number of batches, or a fraction of them as a ``float``, as in Lightning's trainer. Its
            annotation of these four, ``Optional[Union[int, float]]``, is cached by Python as that of ``float`` and
            ``int`` elsewhere in Lightning, so that the command line would read 1 as 1.0, all batches.
        limit_val_batches: The same for validation.
        limit_test_batches: The same for tests.
        limit_predict_batches: The same for prediction.
        kwargs: Other arguments of Lightning's trainer.
    """

    def __init__(
        self,
        *args: Any,
        precision: Precision = "auto",
        callbacks: list[Callback] | Callback | None = None,
        enable_model_summary: bool = True,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        **kwargs: Any,
    ) -> None:
        accelerator = kwargs.get("accelerator", "auto")
        if _uses_gpu(accelerator):
            torch.set_float32_matmul_precision("high")
        callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
        if enable_model_summary and not any(isinstance(callback, ModelSummary) for callback in callbacks):
            callbacks.append(ComponentSummaryCallback())
        super().__init__(
            *args,
            precision=resolve_precision(precision, accelerator),
            callbacks=callbacks,
            enable_model_summary=False,  # or Lightning adds its own
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            limit_predict_batches=limit_predict_batches,
            **kwargs,
        )


def resolve_precision(precision: Precision, accelerator: str) -> SupportedPrecision:
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
        resolved: SupportedPrecision = "bf16-mixed" if is_fast else "32-true"
        kind, has = "GPU" if uses_gpu else "CPU", "has" if is_fast else "has no"
        rank_zero_info(f"Precision {resolved}: this {kind} {has} bfloat16 instructions.")
        return resolved
    if precision == "bf16-mixed" and not is_fast and device.type == "cpu":
        warn_of_emulation("trainer.precision is bf16-mixed", "auto")
    return precision


def _uses_gpu(accelerator: str) -> bool:
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
