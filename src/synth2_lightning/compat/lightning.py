"""Private APIs of Lightning; checked with 2.6.1 and 2.6.6."""

from collections.abc import Callable
from types import FrameType
from typing import Protocol, cast, runtime_checkable

from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.loops.evaluation_loop import RestartStage
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

INSTANTIATOR_KEY = "_instantiator"
"""Key of hyperparameters that ``LightningCLI`` recorded; ``lightning.pytorch.cli`` has it as a literal."""

CLASS_PATH_KEY = "_class_path"
"""Key of the recorded module's import path; ``lightning.pytorch.cli`` has it as a literal."""


def has_given_hyperparameters() -> bool:
    """Return whether ``LightningCLI`` constructs a module, whose arguments it gives to ``save_hyperparameters``.

    Reads ``_given_hyperparameters``, the context variable of :data:`INSTANTIATOR_KEY`.
    """
    return _given_hyperparameters.get() is not None


@runtime_checkable
class TrainerAttributes(Protocol):
    """Public attributes that a trainer's connectors set; type checkers do not find them on ``Trainer``."""

    callbacks: list[Callback]
    datamodule: LightningDataModule | None
    fast_dev_run: bool | int
    overfit_batches: float


class EpochProgressBar(RichProgressBar):
    """Progress bar that shows ``Epoch 0`` if only the steps are limited, where Lightning shows ``Epoch 0/-2``.

    Overrides ``RichProgressBar._get_train_description``, which subtracts one from ``max_epochs``, also from -1.
    """

    def _get_train_description(self, current_epoch: int) -> str:
        if self.trainer.max_epochs != -1:
            return super()._get_train_description(current_epoch)
        return f"Epoch {current_epoch}".ljust(len(self.validation_description))


def attributes_of(trainer: Trainer) -> TrainerAttributes:
    """Return a trainer as an object whose attributes are known to type checkers."""
    return cast(TrainerAttributes, trainer)


def keep_batches(trainer: Trainer) -> None:
    """Turn off the trainer's conversion of batches, so that modules get them unchanged.

    Replaces ``convert_input`` of the trainer's precision plugin: those of FSDP, DeepSpeed, half and double precision
    raise ``ValueError`` for frozen dataclasses, which batches are. Lightning calls it before any hook of the module,
    and a plugin of our own would have to be named in every run file.

    Args:
        trainer: The trainer, once its strategy has its precision plugin.
    """
    trainer.precision_plugin.convert_input = lambda data: data  # type: ignore[method-assign]


def replace_sigterm_handler(trainer: Trainer, handler: Callable[[int, FrameType | None], None]) -> None:
    """Replace the SIGTERM handler that the trainer registers.

    Replaces ``_SignalConnector._sigterm_notifier_fn``, which broadcasts within the signal: a rank that receives the
    signal twice deadlocks. A handler that a hook registered with ``signal`` would run after Lightning's.

    Also replaces ``_TrainingEpochLoop._broadcast_sigterm_tensor``, which broadcasts the flag of rank 0 before each
    batch and waits for the device. The handler must make all ranks call :func:`request_stop`, which needs no broadcast.

    Args:
        trainer: The trainer, before it registers its handlers, as in the ``setup`` hook.
        handler: Called with the signal's number and the interrupted frame.
    """
    trainer._signal_connector._sigterm_notifier_fn = handler  # type: ignore[assignment, method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def request_stop(trainer: Trainer) -> None:
    """Make the trainer raise ``SIGTERMException`` after the current step or batch.

    Sets ``_SignalConnector.received_sigterm``, for which ``Trainer.received_sigterm`` has no setter.
    ``Trainer.should_stop`` is no substitute: it runs one more validation. Call it on every rank.
    """
    trainer._signal_connector.received_sigterm = True


def is_validation_due(trainer: Trainer) -> bool:
    """Return whether a validation follows the current training batch.

    Calls ``_TrainingEpochLoop._should_check_val_fx``; Lightning has no public method for it. Call it within
    ``on_train_batch_end``.
    """
    fetcher = trainer.fit_loop._data_fetcher
    return (
        trainer.enable_validation and fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)
    )


def repeat_aborted_validation(trainer: Trainer) -> None:
    """Make a run that resumes from a checkpoint of an aborted validation start with it, from its first batch.

    Sets ``_EvaluationLoop._restart_stage`` to that of a checkpoint saved within a batch. Lightning would take one that
    was saved between batches for one after the validation, and skip the rest; it would resume the former in the middle,
    without the metrics of earlier batches. Call it within ``on_train_start``.
    """
    loop = trainer.fit_loop.epoch_loop.val_loop
    total, current = loop.batch_progress.total, loop.batch_progress.current
    if trainer.ckpt_path is None or current.completed == 0 or loop.batch_progress.is_last_batch:
        return
    for name in ("ready", "started", "processed", "completed"):
        setattr(total, name, getattr(total, name) - getattr(current, name))
    current.reset()
    loop._restart_stage = RestartStage.RESTARTED_MID_EVALUATION


def save_also_after_steps(callback: ModelCheckpoint) -> None:
    """Make a callback save after every training step, in addition to validations and epochs.

    Sets ``ModelCheckpoint._every_n_train_steps``; its constructor refuses it together with ``every_n_epochs``.

    Args:
        callback: A callback that was constructed with neither.

    Example:
        >>> callback = ModelCheckpoint()
        >>> save_also_after_steps(callback)
        >>> "'every_n_train_steps': 1, 'every_n_epochs': 1" in callback.state_key
        True
    """
    callback._every_n_train_steps = 1


def is_multiprocessing(strategy: Strategy) -> bool:
    """Return whether a strategy starts processes by ``multiprocessing``, as ``ddp_spawn`` and ``ddp_notebook`` do.

    Tests for ``_MultiProcessingLauncher``; strategies have no public attribute for it.

    Example:
        >>> from lightning.pytorch.strategies import SingleDeviceStrategy
        >>> is_multiprocessing(SingleDeviceStrategy("cpu"))
        False
    """
    return isinstance(strategy.launcher, _MultiProcessingLauncher)
