"""Number of optimization steps in the names of what callbacks write."""

from lightning.pytorch import LightningModule, Trainer


def evaluated_step(trainer: Trainer, pl_module: LightningModule) -> int:
    """Return the number of optimization steps of the weights that are evaluated.

    That of the trainer is the last one of its own fit, even if a checkpoint was loaded later. It is returned for
    modules without ``trained_steps``.
    """
    step: int | None = getattr(pl_module, "trained_steps", None)
    return trainer.global_step if step is None else step
