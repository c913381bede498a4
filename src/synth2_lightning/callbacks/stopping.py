"""What SIGTERM does: a run ends at a whole step, on all ranks together."""

from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

_STOPPED_BY_SIGTERM = 143


class SigtermCallback(Callback):
    """Ends a run at the next whole step after SIGTERM, on all ranks together.

    Lightning's own handler talks to the other ranks from within the signal, which waits for ever where one of them gets
    the signal twice; and its predictions do not listen. This one only takes a note. In training the ranks agree after
    every optimisation step, so that whichever of them was told, all stop after the same one, with no gradient half
    gathered; a :class:`~synth2_lightning.callbacks.last_checkpoint.LastCheckpointCallback` then saves it. A validation
    is broken off, and made again by the run that goes on. In predictions, where ranks do not wait for each other, each
    stops by itself.

    The run ends with Lightning's ``SIGTERMException``, a ``SystemExit``, and code 143, as shells give it. Only in
    processes that Lightning started, not a launcher, the code is 0: where one of them ends with an error, Lightning
    kills the first, which may still be writing, and which tells how the run ended.

    Example:
        >>> SigtermCallback().is_requested
        False
    """

    def __init__(self) -> None:
        self.is_requested = False
        self._num_steps = 0
        self._launcher: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the place of Lightning's handler, before it is registered."""
        self.is_requested = False
        self._launcher = trainer.strategy.launcher
        # A handler of our own, registered from a later hook, would leave a time in which Lightning's is the one.
        trainer._signal_connector._sigterm_notifier_fn = self._take_note  # type: ignore[assignment, method-assign]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from where the run begins."""
        self._num_steps = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Agree, after an optimisation step, of which there is not one in every batch.

        Not after the last of an epoch, unless there is no other: Lightning does not go on well from there.
        """
        if trainer.global_step > self._num_steps and (not trainer.is_last_batch or trainer.num_training_batches == 1):
            self._num_steps = trainer.global_step
            self._agree(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Agree: all ranks have the same number of batches."""
        self._agree(trainer)

    def on_test_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Agree: all ranks have the same number of batches."""
        self._agree(trainer)

    def on_predict_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Stop, whatever the other ranks do.

        Raises:
            SIGTERMException: If the signal came.
        """
        if self.is_requested:
            raise SIGTERMException

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the process its exit code."""
        if isinstance(exception, SIGTERMException):
            environment = getattr(trainer.strategy, "cluster_environment", None)
            is_child = isinstance(environment, LightningEnvironment) and trainer.local_rank > 0
            exception.code = 0 if is_child else _STOPPED_BY_SIGTERM

    def _take_note(self, signum: int, frame: FrameType | None) -> None:
        if not self.is_requested and self._launcher is not None:
            self._launcher.kill(signum)  # to the ranks that this process started
        self.is_requested = True

    def _agree(self, trainer: Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self.is_requested, all=False):
            rank_zero_info(f"SIGTERM: the run stops after step {trainer.global_step}.")
            # Lightning looks at this after a step, or, where a validation follows, after a batch of that. There is no
            # public way to set it; a `should_stop` would validate once more.
            trainer._signal_connector.received_sigterm = True
