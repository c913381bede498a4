"""Throughput and data-loading time."""

from time import perf_counter
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from synth2_lightning.types import ImageTextBatch


class DataWaitCallback(Callback):
    """Logs samples per second over all ranks, and the fraction of time that training waits for data.

    Near 0 the model is the bottleneck. Near 1 data loading is: add workers, or train on token shards. Lightning's
    ``ThroughputMonitor`` is not used, because it does not time the data loader, synchronizes with the GPU in every
    step, and does not log to the progress bar.

    Args:
        window: Number of training steps to average over.

    Raises:
        ValueError: If the window is shorter than one step.

    Example:
        >>> DataWaitCallback(window=50).window
        50
    """

    def __init__(self, window: int = 20) -> None:
        if window < 1:
            raise ValueError(f"DataWaitCallback.window is {window}; expected 1 or more training steps.")
        self.window = window
        self._ended: float | None = None
        self._clear()

    def _clear(self) -> None:
        self._waited = self._worked = 0.0
        self._num_samples = self._num_steps = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the start of an epoch: resets the counters, so that time between epochs is excluded."""
        self._ended = None
        self._clear()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run after a validation: excludes its time."""
        self._ended = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Run when a checkpoint is saved: excludes its time."""
        self._ended = None

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """Run before each step: counts the time since the last one as waiting for data."""
        self._started = perf_counter()
        if self._ended is not None:
            self._waited += self._started - self._ended

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageTextBatch, batch_idx: int
    ) -> None:
        """Run after each step: counts its time, and logs once per window."""
        self._ended = perf_counter()
        self._worked += self._ended - self._started
        self._num_samples += len(batch)
        self._num_steps += 1
        if self._num_steps == self.window:
            seconds = self._waited + self._worked
            rate = self._num_samples * trainer.world_size / seconds
            pl_module.log("speed/samples_per_s", rate, prog_bar=True, batch_size=len(batch))
            pl_module.log("speed/data_wait", self._waited / seconds, prog_bar=True, batch_size=len(batch))
            self._clear()
