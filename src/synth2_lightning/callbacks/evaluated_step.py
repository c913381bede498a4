"""Base class of callbacks whose output has the number of optimization steps in its name."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn


class EvaluatedStepCallback(Callback):
    """Provides the number of optimization steps of the weights that are evaluated.

    In a fit it is ``trainer.global_step``. Lightning does not restore that from a checkpoint that is only evaluated.
    """

    _loaded_step: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Run before a stage: clears the step of an earlier one."""
        self._loaded_step = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Run when a checkpoint is loaded: stores its step, if it is only evaluated."""
        if trainer.state.fn is not TrainerFn.FITTING:
            self._loaded_step = checkpoint["global_step"]

    def num_steps(self, trainer: Trainer) -> int:
        """Return the number of optimization steps of the weights."""
        return trainer.global_step if self._loaded_step is None else self._loaded_step
