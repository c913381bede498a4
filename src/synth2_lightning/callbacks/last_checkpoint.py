"""Checkpoints to resume from."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from synth2_lightning.compat.lightning import (
    attributes_of,
    is_validation_due,
    repeat_aborted_validation,
    save_also_after_steps,
)
from synth2_lightning.io.messages import name_first


class LastCheckpointCallback(ModelCheckpoint):
    """Keeps the newest checkpoints, with a link ``last.ckpt`` to the last, and saves one more when SIGTERM ends a run.

    More than one is kept, in case the newest is damaged. No checkpoint is saved after an error or ctrl-C: these may
    interrupt a step.

    Args:
        dirpath: Folder of the checkpoints; by default ``checkpoints`` in the log folder.
        every_n_train_steps: Optimization steps after which to save, in addition to the end of every validation. The
            save is one step later if this is the last step of an epoch.
        num_kept: Number of checkpoints to keep.

    Example:
        >>> LastCheckpointCallback().save_top_k
        2
    """

    def __init__(self, dirpath: str | None = None, every_n_train_steps: int | None = 1000, num_kept: int = 2) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="step={step}",
            auto_insert_metric_name=False,
            monitor="step",
            mode="max",
            save_top_k=num_kept,
            save_last="link",
            save_on_exception=True,
            enable_version_counter=False,  # a resumed run saves to the same folder
        )
        if every_n_train_steps:
            save_also_after_steps(self)  # on_train_batch_end selects the steps
        self._interval = every_n_train_steps or 0
        self._start: Path | None = None  # checkpoint that the run resumed from, until it is deleted
        self._start_step = 0
        self._num_steps = 0
        self._is_step_complete = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run before the first step: starts to count, and refuses a folder with checkpoints of another run."""
        self._check_folder(trainer)
        super().on_train_start(trainer, pl_module)
        repeat_aborted_validation(trainer)
        self._start = None if trainer.ckpt_path is None else Path(trainer.ckpt_path)
        self._num_steps = self._start_step = trainer.global_step

    def _check_folder(self, trainer: Trainer) -> None:
        folder = Path(self.dirpath or "")
        is_same_run = trainer.ckpt_path is not None and Path(trainer.ckpt_path).parent.resolve() == folder.resolve()
        own = {Path(path).name for path in self.best_k_models}  # of an earlier fit with the same trainer
        others = [] if is_same_run else sorted({path.name for path in folder.glob("step=*.ckpt")} - own)
        if others:
            raise FileExistsError(
                f"{folder} contains checkpoints of another run ({name_first(others)}), which this one would "
                "replace. Expected a separate folder. Set the callback's dirpath or --trainer.default_root_dir, or "
                "move the checkpoints. To resume that run, use --ckpt_path."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Run before each step: deletes the checkpoint that the run resumed from, once there are enough newer ones."""
        if self._start is None or len(self.best_k_models) < self.save_top_k:
            return
        step = self._start.stem.removeprefix("step=")
        if self._start.parent == Path(self.dirpath or "") and step.isdecimal() and int(step) < self.kth_value:
            trainer.strategy.remove_checkpoint(self._start)
            self._start = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Run after each batch: saves if a checkpoint is due.

        If a validation follows, the checkpoint is saved after it: a run resumed from here would skip the validation. No
        checkpoint is saved at the end of an epoch; see :meth:`on_exception`.
        """
        self._is_step_complete = trainer.global_step > self._num_steps
        self._num_steps = trainer.global_step
        # The score is restored from a checkpoint, so a resumed run saves at the same steps as an uninterrupted one.
        last_saved = self._start_step if self.best_model_score is None else int(self.best_model_score)
        is_due = self._is_step_complete and trainer.global_step - last_saved >= self._interval
        if is_due and not is_validation_due(trainer) and not trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, *args)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run after a validation: saves, except during gradient accumulation, as checkpoints contain no gradients."""
        if self._is_step_complete:
            super().on_validation_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Run at an error: saves if it is SIGTERM after a complete step, or in the validation after it.

        The resumed run repeats an aborted validation. No checkpoint is saved at the end of an epoch without validation,
        from which Lightning would resume with one batch too many. The run then resumes from an earlier checkpoint.
        """
        can_save = self._is_step_complete and (
            _is_in_validation(trainer) if trainer.validating else trainer.training and not trainer.is_last_batch
        )
        if isinstance(exception, SIGTERMException) and can_save:
            super().on_exception(trainer, pl_module, exception)
        elif isinstance(exception, KeyboardInterrupt):
            saved = "Nothing was saved yet."
            if (step := self.best_model_score) is not None:
                saved = f"The last checkpoint is of step {int(step)}; --ckpt_path last resumes from it."
            rank_zero_info(f"Stopped in step {trainer.global_step + 1}. {saved}")


def _is_in_validation(trainer: Trainer) -> bool:
    """Whether a fit validates, with the trained weights in the module; Lightning's average replaces them."""
    has_average = any(isinstance(callback, WeightAveraging) for callback in attributes_of(trainer).callbacks)
    return trainer.state.fn is TrainerFn.FITTING and not has_average
