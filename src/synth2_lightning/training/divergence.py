"""Detection of losses and weights that are not finite, on all ranks."""

import math

from lightning.pytorch import LightningModule, Trainer
from torch.distributed.tensor import DTensor

from synth2_lightning.io.messages import name_first
from synth2_lightning.training.step_status import BatchStatus


def check_batch(module: LightningModule, status: BatchStatus) -> None:
    """Raise on a batch without a target token, and on a loss that is NaN or infinite on any rank.

    Raises:
        ValueError: On all ranks, if no rank has a target token.
        FloatingPointError: On all ranks, if the loss of any rank is not finite.
    """
    if status.num_tokens == 0:
        raise ValueError(
            f"No caption in the batch of step {status.step} has a target token; expected at least one. Check the data "
            "for empty captions, or for a prompt that fills the decoder's maximum length."
        )
    trainer, rank = module.trainer, module.global_rank
    if not math.isfinite(status.loss):
        found = f"{status.loss} on process {rank}"
    elif not math.isfinite(status.loss_sum):
        found = f"not finite on another process than {rank}"
    else:
        return
    logged = {name: f"{value:.4g}" for name, value in trainer.callback_metrics.items() if "train/" in name}
    rates = {f"{group['lr']:.4g}" for optimizer in trainer.optimizers for group in optimizer.param_groups}
    raise FloatingPointError(
        f"The training loss of step {status.step} is {found}; expected a finite loss on all processes. No checkpoint "
        "is written with the weights of that step. Last logged on this process: "
        f"{', '.join(map('='.join, logged.items())) or 'nothing'}. Learning rate: {', '.join(sorted(rates))}. "
        f"{_advice(trainer)}"
    )


def check_finite_weights(module: LightningModule) -> None:
    """Raise on trained weights that are NaN or infinite on any rank; call it on all ranks, before writing them.

    Raises:
        FloatingPointError: If a trained weight of any rank is not finite.
    """
    trainer = module.trainer
    trained = {name: weight.detach() for name, weight in module.named_parameters() if weight.requires_grad}
    local = {name: weight.to_local() if isinstance(weight, DTensor) else weight for name, weight in trained.items()}
    nonfinite = [name for name, weight in local.items() if not weight.isfinite().all()]
    if trainer.strategy.reduce_boolean_decision(bool(nonfinite), all=False):
        raise FloatingPointError(
            f"{len(nonfinite)} of {len(trained)} trained weights "
            f"({name_first(nonfinite) or 'but some on another process'}) are not finite on process "
            f"{module.global_rank} after {trainer.global_step} steps, though the loss was; expected finite weights. "
            f"Nothing is written. {_advice(trainer)}"
        )


def _advice(trainer: Trainer) -> str:
    callbacks = trainer.checkpoint_callbacks
    kept = [getattr(callback, f"{which}_model_path", "") for which in ("last", "best") for callback in callbacks]
    path = next(filter(None, kept), "")
    resume = f"Resume from {path} (--ckpt_path, --resume_with_changes=true)"
    start = resume if path else "There is no checkpoint yet: start a new run"
    return (
        f"{start} with a lower learning rate, trainer.gradient_clip_val or trainer.precision=32-true; "
        "trainer.detect_anomaly=true names the first operation that is not finite."
    )
