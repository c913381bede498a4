"""Graceful stop after SIGTERM."""

from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from synth2_lightning.compat.lightning import replace_sigterm_handler, request_stop
from synth2_lightning.interfaces import StopsTogether

_STOPPED_BY_SIGTERM = 143


class SigtermCallback(Callback):
    """Ends a run after the current optimization step when any rank receives SIGTERM; all ranks stop at the same step.

    Lightning's handler runs a collective call within the signal handler, which deadlocks if a rank gets the signal
    twice, and Lightning's predictions ignore the signal. This handler only sets a flag. In training all ranks combine
    their flags in every batch, those of a :class:`~synth2_lightning.interfaces.StopsTogether` one or two batches late,
    and :class:`~synth2_lightning.callbacks.last_checkpoint.LastCheckpointCallback` saves a checkpoint. A validation is
    aborted, and the resumed run repeats it. In predictions each rank stops by itself.

    The run ends with Lightning's ``SIGTERMException``, a ``SystemExit``, and exit code 143, as in shells. In child
    processes that Lightning itself started the code is 0: Lightning kills rank 0 when one of them fails, though it may
    still be writing, and rank 0 returns the exit code of the run.

    Example:
        >>> SigtermCallback().is_requested
        False
    """

    def __init__(self) -> None:
        self.is_requested = False
        self._num_steps = 0
        self._launcher: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Run before a stage: replaces Lightning's handler before it is registered."""
        self.is_requested = False
        self._launcher = trainer.strategy.launcher
        replace_sigterm_handler(trainer, self._handle)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run before the first step: starts to count."""
        self._num_steps = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Run before each batch: passes the signal to the module."""
        if isinstance(pl_module, StopsTogether):
            pl_module.is_stop_requested = self.is_requested

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Run after each batch: stops if any rank received the signal, after an optimization step.

        The last step of an epoch is skipped, unless the epoch has one step: Lightning cannot resume from there.
        """
        if trainer.global_step > self._num_steps and (not trainer.is_last_batch or trainer.num_training_batches == 1):
            self._num_steps = trainer.global_step
            if trainer.world_size > 1 and isinstance(pl_module, StopsTogether):
                self._stop(trainer, pl_module.is_stop_agreed)
            else:
                self._stop_together(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Run after each batch, of which all ranks have equally many: stops if any rank received the signal."""
        self._stop_together(trainer)

    def on_test_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Run after each batch of a test: does the same as in a validation."""
        self._stop_together(trainer)

    def on_predict_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Run after each batch of a prediction: stops this rank if it received the signal."""
        if self.is_requested:
            raise SIGTERMException

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Run at an error: sets the exit code of the process."""
        if isinstance(exception, SIGTERMException):
            environment = getattr(trainer.strategy, "cluster_environment", None)
            is_child = isinstance(environment, LightningEnvironment) and trainer.local_rank > 0
            exception.code = 0 if is_child else _STOPPED_BY_SIGTERM

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not self.is_requested and self._launcher is not None:
            self._launcher.kill(signum)  # to the ranks that this process started
        self.is_requested = True

    def _stop_together(self, trainer: Trainer) -> None:
        self._stop(trainer, trainer.strategy.reduce_boolean_decision(self.is_requested, all=False))

    def _stop(self, trainer: Trainer, is_agreed: bool) -> None:
        if is_agreed:
            rank_zero_info(_explain_stop(trainer))
            request_stop(trainer)


def _explain_stop(trainer: Trainer) -> str:
    if trainer.training:
        return f"SIGTERM received: the run stops after step {trainer.global_step}."
    if trainer.state.fn is TrainerFn.FITTING:
        return "SIGTERM received in a validation, which is aborted. The resumed run repeats it."
    return "SIGTERM received: the command stops."
