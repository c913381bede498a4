"""Checks, metrics and stop requests of training steps, for which the host does not wait for the device."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from synth2_lightning.training.divergence import check_batch
from synth2_lightning.training.step_status import StepStatus


class StatusModule(LightningModule):
    """LightningModule whose training steps have one collective besides those of the gradients.

    It combines the loss and the stop requests of all ranks, see :class:`StepStatus`. The host reads the outcome of a
    batch after the forward pass of the next one. So a loss that is not finite ends the run one batch late, and no
    checkpoint is written in between.
    """

    def __init__(self) -> None:
        super().__init__()
        self._status = StepStatus()
        self._shown: dict[str, Tensor] = {}

    def log_training(self, metrics: Mapping[str, Tensor | float], batch_size: int, shown: Collection[str] = ()) -> None:
        """Log metrics of a training step without waiting for the device.

        Loggers read the values every ``log_every_n_steps`` steps. The progress bar gets those of the previous batch, in
        the same copy from the device as its loss.

        Args:
            metrics: Scalars by name.
            batch_size: Number of images of the batch.
            shown: Names of the metrics in the progress bar, where they have no prefix: ``loss`` for ``train/loss``.
        """
        for name, value in metrics.items():
            # A number would be copied to the device, which waits.
            self.log(name, value if isinstance(value, Tensor) else torch.tensor(value), batch_size=batch_size)
        self._shown = {name.partition("/")[2]: torch.as_tensor(metrics[name]) for name in shown}

    @property
    def is_stop_requested(self) -> bool:
        """Whether this rank asks all ranks to stop; see :class:`~synth2_lightning.interfaces.StopsTogether`."""
        return self._status.is_stop_requested

    @is_stop_requested.setter
    def is_stop_requested(self, is_requested: bool) -> None:
        self._status.is_stop_requested = is_requested

    @property
    def is_stop_agreed(self) -> bool:
        """Whether any rank asked, in a batch before this one."""
        return self._status.is_stop_agreed

    def on_before_backward(self, loss: Tensor) -> None:
        """Run before each backward pass: checks the previous batch, so that the host does not wait for this one."""
        for name, value in self._check_last_batch().items():
            self.log(name, torch.tensor(value), prog_bar=True, logger=False, batch_size=1)
        self._status.publish(loss, self.trainer.global_step + 1, self._shown)
        self._shown = {}

    def on_train_start(self) -> None:
        """Run before the first step: forgets the batches of an earlier fit."""
        self._status = StepStatus()

    def on_validation_start(self) -> None:
        """Run before each validation: checks the last batch."""
        self._check_last_batch()

    def on_train_end(self) -> None:
        """Run after the last step: checks the last batch."""
        self._check_last_batch()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Run when a checkpoint is saved: checks the last batch."""
        self._check_last_batch()

    def _check_last_batch(self) -> dict[str, float]:
        status = self._status.read()
        if status is None:
            return {}
        check_batch(self, status)
        return status.shown
