"""Callbacks that every run has, whether a script or the command line constructs its trainer."""

from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from synth2_lightning.callbacks.checkpoint_io import CheckedCheckpointIO
from synth2_lightning.callbacks.last_checkpoint import LastCheckpointCallback
from synth2_lightning.callbacks.run_lock import RunLockCallback
from synth2_lightning.callbacks.stopping import SigtermCallback
from synth2_lightning.compat.lightning import attributes_of

_CHECKPOINT_SETTINGS = ("dirpath", "filename", "save_last", "save_top_k", "save_weights_only", "state_key")


def add_safeguards(trainer: Trainer) -> None:
    """Add checked checkpoints, locks of the run's folders, a stop after SIGTERM and ``last.ckpt``, where missing.

    ``last.ckpt`` replaces the ``ModelCheckpoint`` that a trainer has by default, and is written beside those that were
    configured; a trainer with ``enable_checkpointing=False`` writes none.

    Args:
        trainer: The trainer, before it calls ``setup`` hooks, as in ``configure_callbacks``. The callbacks are added to
            it: of those that ``configure_callbacks`` returns, a subclass of ``ModelCheckpoint`` would replace all
            others.
    """
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # the default
        trainer.strategy.checkpoint_io = CheckedCheckpointIO()
    callbacks = attributes_of(trainer).callbacks
    callbacks[:0] = [kind() for kind in (SigtermCallback, RunLockCallback) if not _has(callbacks, kind)]
    is_saving = trainer.state.fn is TrainerFn.FITTING and _has(callbacks, ModelCheckpoint)
    if is_saving and not _has(callbacks, LastCheckpointCallback):
        callbacks[:] = [*(each for each in callbacks if not _is_default(each)), LastCheckpointCallback()]


def _has(callbacks: list[Callback], kind: type[Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)


def _is_default(callback: Callback) -> bool:
    default = ModelCheckpoint()
    return type(callback) is ModelCheckpoint and all(
        getattr(callback, name) == getattr(default, name) for name in _CHECKPOINT_SETTINGS
    )
