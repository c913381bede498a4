"""Keeps two runs out of one folder."""

from contextlib import ExitStack
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from synth2_lightning.files import lock_folder
from synth2_lightning.remote import is_remote


class RunLockCallback(Callback):
    """Locks the folders of a run's logs and checkpoints while it lasts; a second run that would write there is refused.

    Two runs that start at the same moment choose the same number for their folder, and two that resume the same
    checkpoint save theirs beside it. ``synth2`` brings this callback; a trainer of one's own needs it among its
    callbacks. Folders behind addresses are not locked.

    Example:
        >>> RunLockCallback().state_key
        'RunLockCallback'
    """

    def __init__(self) -> None:
        self._locks = ExitStack()
        self._locked: set[Path] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lock the folder of the logs, before a run file is written to it.

        Raises:
            BlockingIOError: If another run writes there.
        """
        self.release()
        folder = trainer.log_dir  # on every rank: Lightning broadcasts it
        if folder is not None and any(isinstance(one, CSVLogger | TensorBoardLogger) for one in trainer.loggers[:1]):
            self._lock(trainer, folder)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lock the folders of the checkpoints, which are known by now.

        Raises:
            BlockingIOError: If another run writes there.
        """
        for saver in trainer.checkpoint_callbacks:
            if isinstance(saver, ModelCheckpoint) and saver.dirpath is not None:
                self._lock(trainer, saver.dirpath)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Release them, unless SIGTERM or the like ends the process: the last checkpoint is still to be saved."""
        if not isinstance(exception, SystemExit):
            self.release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release them."""
        self.release()

    def _lock(self, trainer: Trainer, folder: str | Path) -> None:
        real = Path(folder).resolve()
        if not trainer.is_global_zero or is_remote(str(folder)) or real in self._locked:
            return
        self._locks.enter_context(lock_folder(Path(folder)))
        self._locked.add(real)

    def release(self) -> None:
        """Let other runs write to the folders."""
        self._locks.close()
        self._locked.clear()
