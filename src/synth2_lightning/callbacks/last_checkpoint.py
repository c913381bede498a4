"""The checkpoints that a run goes on from."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException


class LastCheckpointCallback(ModelCheckpoint):
    """Keeps the newest checkpoints, with a link ``last.ckpt`` to the last, and saves one more when SIGTERM ends a run.

    More than one, so that there is another to go on from where the newest is damaged. Of what else ends a run none is
    saved: an error or ctrl-C may come in the middle of a step, and half a step is no place to go on from.

    Args:
        dirpath: Folder; by default ``checkpoints`` in that of the logs.
        every_n_train_steps: Save after so many optimisation steps, in addition to the end of every validation.
        num_kept: How many to keep.

    Example:
        >>> LastCheckpointCallback().save_top_k
        2
    """

    def __init__(self, dirpath: str | None = None, every_n_train_steps: int | None = None, num_kept: int = 2) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="step={step}",
            auto_insert_metric_name=False,
            monitor="step",
            mode="max",
            save_top_k=num_kept,
            save_last="link",
            save_on_exception=True,
            every_n_train_steps=every_n_train_steps,
            enable_version_counter=False,  # one folder is one run, however often it was stopped
        )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save where SIGTERM ended the run after a whole step.

        Not within a validation, which is made again, nor at the end of an epoch, from which Lightning would go on with
        a batch too many: the run then goes on from an earlier checkpoint.
        """
        if isinstance(exception, SIGTERMException) and trainer.training and not trainer.is_last_batch:
            super().on_exception(trainer, pl_module, exception)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Let go of the one that the run went on from, which Lightning keeps for ever, once there are enough others."""
        if trainer.ckpt_path is None:
            return
        start = Path(trainer.ckpt_path)
        is_own = start.parent == Path(self.dirpath or "") and start.name.startswith("step=")
        if is_own and len(self.best_k_models) == self.save_top_k and str(start) not in self.best_k_models:
            trainer.strategy.remove_checkpoint(start)
