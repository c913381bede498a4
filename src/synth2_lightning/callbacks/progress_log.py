"""Lines of progress for runs without a terminal."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from synth2_lightning.callbacks.run_folder import run_folder
from synth2_lightning.io.console import shows_progress_bars


class ProgressLogCallback(Callback):
    """Logs a line of progress about once a minute if there is no terminal, where progress bars are not shown.

    A line has the step or batch, the logged metrics of the progress bar, the seconds per step, and the remaining time
    at this speed. The metrics of a validation are logged at its end. Lines appear in the logs of SLURM, Kubernetes,
    ``nohup`` and continuous integration.

    Args:
        interval: Seconds between two lines.

    Example:
        >>> ProgressLogCallback(interval=10).interval
        10
    """

    def __init__(self, interval: float = 60) -> None:
        self.interval = interval
        self._start(0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the start and at a resume: starts the clock; logs what is resumed, and the folder of the new log."""
        self._start(trainer.global_step)
        if trainer.ckpt_path is not None and trainer.loggers:
            folder = run_folder(trainer)
            rank_zero_info(
                f"Resuming {trainer.ckpt_path} after step {trainer.global_step}. Logs, samples and scores of the "
                f"resumed run are in {folder}{_name_checkpoints(trainer, folder)}."
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Run after each batch: logs the step."""
        if self._is_due():
            metrics = [f"{name} {float(value):.4g}" for name, value in trainer.progress_bar_metrics.items()]
            self._log("Step", trainer.global_step, trainer.estimated_stepping_batches, metrics)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the end of a fit: logs its folder, if it has one."""
        if trainer.loggers:
            folder = run_folder(trainer)
            rank_zero_info(f"Logs, samples and scores of the run are in {folder}{_name_checkpoints(trainer, folder)}.")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run before each validation: starts the clock, except within ``fit``."""
        self._num_batches = 0
        if trainer.state.fn is not TrainerFn.FITTING:
            self._start(0)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Run after each batch of a validation: logs its number."""
        self._num_batches += 1
        if self._is_due():
            if trainer.state.fn is TrainerFn.FITTING:
                rank_zero_info(f"Validation: batch {self._num_batches} of {sum(trainer.num_val_batches)}.")
            else:
                self._log("Batch", self._num_batches, sum(trainer.num_val_batches))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run after each validation of a fit: logs its metrics; after others, Lightning prints a table."""
        if trainer.state.fn is TrainerFn.FITTING and not trainer.sanity_checking and not shows_progress_bars():
            scores = {name: value for name, value in trainer.progress_bar_metrics.items() if name.startswith("val/")}
            words = [f"{name} {float(value):.4g}" for name, value in scores.items()] or ["finished"]
            rank_zero_info(f"Validation at step {trainer.global_step}: {', '.join(words)}.")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run before a test: starts the clock."""
        self._start(0)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Run after each batch of a test: logs its number."""
        self._num_batches += 1
        if self._is_due():
            self._log("Batch", self._num_batches, sum(trainer.num_test_batches))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run before a prediction: starts the clock, and logs the number of batches, whose first may take long."""
        self._start(0)
        if not shows_progress_bars():
            rank_zero_info(f"Prediction: {sum(trainer.num_predict_batches)} batches.")

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Run after each batch of a prediction: logs its number."""
        self._num_batches += 1
        if self._is_due():
            self._log("Batch", self._num_batches, sum(trainer.num_predict_batches))

    def _start(self, count: int) -> None:
        self._started = self._logged = monotonic()
        self._first = count
        self._num_batches = 0

    def _is_due(self) -> bool:
        if monotonic() - self._logged < self.interval or shows_progress_bars():
            return False
        self._logged = monotonic()
        return True

    def _log(self, noun: str, count: int, total: float, metrics: Sequence[str] = ()) -> None:
        speed = (self._logged - self._started) / max(count - self._first, 1)
        words = [*metrics, f"{speed:.3g} s per {noun.lower()}"]
        if total < float("inf"):
            words.append(f"{timedelta(seconds=round(speed * (total - count)))} left")
            noun = f"{noun} {count} of {int(total)}"
        else:
            noun = f"{noun} {count}"
        rank_zero_info(f"{noun}: {', '.join(words)}.")


def _name_checkpoints(trainer: Trainer, folder: Path) -> str:
    """Return the folder of the checkpoints if it is another one, as in a resumed run."""
    callback = trainer.checkpoint_callback
    checkpoints = Path(callback.dirpath or folder) if isinstance(callback, ModelCheckpoint) else folder
    return "" if checkpoints.resolve().is_relative_to(folder.resolve()) else f", its checkpoints in {checkpoints}"
