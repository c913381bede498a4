"""Locks of a run's folders."""

from contextlib import ExitStack
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from synth2_lightning.io.locks import lock_folder
from synth2_lightning.io.remote import is_remote


class RunLockCallback(Callback):
    """Locks the folders of a run's logs and checkpoints; a second run that would write to them is refused.

    Two runs that start at the same time choose the same folder number, and two that resume the same checkpoint save to
    the same folder. ``synth2`` and the modules of this package add this callback. Remote folders are not locked.

    Raises:
        BlockingIOError: At the start of a stage, if another run holds a lock.
    """

    def __init__(self) -> None:
        self._locks = ExitStack()
        self._locked: set[Path] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Run before a stage: locks the log folder, before the run file is written to it."""
        self.release()
        folder = trainer.log_dir  # on every rank: log_dir is a collective call
        if folder is not None and any(
            isinstance(logger, CSVLogger | TensorBoardLogger) for logger in trainer.loggers[:1]
        ):
            self._lock(trainer, folder)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the start of a fit: locks the checkpoint folders, whose paths are known by now."""
        for saver in trainer.checkpoint_callbacks:
            if isinstance(saver, ModelCheckpoint) and saver.dirpath is not None:
                self._lock(trainer, saver.dirpath)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Run at an error: releases the locks, except after SIGTERM, as the last checkpoint is not yet saved."""
        if not isinstance(exception, SystemExit):
            self.release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Run after a stage: releases the locks."""
        self.release()

    def _lock(self, trainer: Trainer, folder: str | Path) -> None:
        path = Path(folder).resolve()
        if not trainer.is_global_zero or is_remote(str(folder)) or path in self._locked:
            return
        self._locks.enter_context(lock_folder(Path(folder)))
        self._locked.add(path)

    def release(self) -> None:
        """Release the locks."""
        self._locks.close()
        self._locked.clear()
