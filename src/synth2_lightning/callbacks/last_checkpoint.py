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
        every_n_train_steps: Save at the first possible step once so many optimization steps have passed since the last
            save, and not only at the end of every validation. Not possible is the last step of an epoch, which is why
            the save may come a step late.
        num_kept: How many to keep.

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
            enable_version_counter=False,  # one folder is one run, however often it was stopped
        )
        # Lightning takes one occasion or the other by its constructor. Which steps are due is decided here, not by it.
        self._every_n_train_steps = 1 if every_n_train_steps else 0
        self._interval = every_n_train_steps or 0
        self._start_step = 0
        self._num_steps = 0
        self._is_whole = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count steps from here.

        Raises:
            FileExistsError: If the folder holds the checkpoints of another run, which this one would replace.
        """
        self._refuse_folder_of_another_run(trainer)
        super().on_train_start(trainer, pl_module)
        self._num_steps = self._start_step = trainer.global_step

    def _refuse_folder_of_another_run(self, trainer: Trainer) -> None:
        folder = Path(self.dirpath or "")
        is_same_run = trainer.ckpt_path is not None and Path(trainer.ckpt_path).parent.resolve() == folder.resolve()
        others = [] if is_same_run else sorted(path.name for path in folder.glob("step=*.ckpt"))
        if others:
            raise FileExistsError(
                f"{folder} holds checkpoints of another run ({', '.join(others[:3])}), which this one would replace. "
                "Expected a folder of its own: name another one by the callback's dirpath or "
                "--trainer.default_root_dir, or move the checkpoints away. To resume that run use --ckpt_path."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Let go of the one that the run went on from, which Lightning keeps for ever, once there are enough newer."""
        if trainer.ckpt_path is None or len(self.best_k_models) < self.save_top_k:
            return
        start = Path(trainer.ckpt_path)
        step = start.stem.removeprefix("step=")
        if start.parent == Path(self.dirpath or "") and step.isdecimal() and int(step) < self.kth_value:
            trainer.strategy.remove_checkpoint(start)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, if it is time to, and note whether gradients are half gathered.

        Where a validation follows, its end is the time to: a run that went on from here would pass it over. Nor is one
        saved at the end of an epoch, for what :meth:`on_exception` says.
        """
        self._is_whole = trainer.global_step > self._num_steps
        self._num_steps = trainer.global_step
        loop = trainer.fit_loop
        is_validated = trainer.enable_validation and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]
        # Restored with a checkpoint, it makes a resumed run save the steps that it would have saved without the stop.
        since = self._start_step if self.best_model_score is None else int(self.best_model_score)
        is_due = self._is_whole and trainer.global_step - since >= self._interval
        if is_due and not is_validated and not trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, unless gradients are half gathered: no checkpoint holds them."""
        if self._is_whole:
            super().on_validation_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save where SIGTERM ended the run after a whole step.

        Not within a validation, which is made again, nor at the end of an epoch, from which Lightning would go on with
        a batch too many: the run then goes on from an earlier checkpoint.
        """
        is_at_rest = trainer.training and self._is_whole and not trainer.is_last_batch
        if isinstance(exception, SIGTERMException) and is_at_rest:
            super().on_exception(trainer, pl_module, exception)
