"""Checks of trainer settings before training."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)

from synth2_lightning.callbacks.corpus_score import CorpusScoreCallback
from synth2_lightning.compat.lightning import attributes_of

_INSTEAD: dict[type[Callback], str] = {
    BatchSizeFinder: (
        "which changes the batch size, so that it differs from the saved settings; set data.init_args.batch_size"
    ),
    LearningRateFinder: (
        "which needs an attribute `lr` that modules of this package do not have; set "
        "model.init_args.optimizer.init_args.lr"
    ),
    StochasticWeightAveraging: (
        "which copies the whole module before its weights are loaded, and replaces its schedule; use "
        "synth2_lightning.callbacks.weight_averaging.WeightAveragingCallback"
    ),
}
_KNOWN_PACKAGES = {"lightning", "synth2_lightning"}
_TRAINING_METRICS = ("train/", "data/", "speed/", "epoch", "step")
_CONFLICT = "The trainer's settings are in conflict:"


def check_trainer_settings(trainer: Trainer, is_resumed: bool) -> None:
    """Raise on settings that would fail later, or change the run silently.

    Args:
        trainer: The trainer, before ``fit``.
        is_resumed: Whether ``fit`` will resume from a checkpoint.

    Raises:
        ValueError: If a setting conflicts with this package or with another setting.

    Example:
        >>> trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        >>> check_trainer_settings(trainer, is_resumed=False)
    """
    attributes = attributes_of(trainer)
    if attributes.overfit_batches:
        raise ValueError(
            f"{_CONFLICT} trainer.overfit_batches={attributes.overfit_batches} replaces the batch sampler, which sets "
            "the mix of sources. Expected 0. To train on a few pairs, set `limit` of the source or the shards."
        )
    if trainer.accumulate_grad_batches < 1:
        raise ValueError(
            f"{_CONFLICT} trainer.accumulate_grad_batches={trainer.accumulate_grad_batches} gives no optimization "
            "step. Expected 1 or more batches per step."
        )
    if attributes.fast_dev_run and is_resumed:
        raise ValueError(
            f"{_CONFLICT} trainer.fast_dev_run runs {trainer.max_steps} steps without checkpoints, so it cannot resume."
            " Expected it without --ckpt_path."
        )
    for callback in attributes.callbacks:
        for class_, reason in _INSTEAD.items():
            if isinstance(callback, class_):
                raise ValueError(f"{_CONFLICT} the callbacks contain {class_.__name__}, {reason} instead.")
        waits_for_validation = (
            isinstance(callback, EarlyStopping)
            and callback.strict
            and trainer.limit_val_batches == 0
            and not callback.monitor.startswith(_TRAINING_METRICS)
        )
        if waits_for_validation:
            raise ValueError(
                f"{_CONFLICT} EarlyStopping monitors {getattr(callback, 'monitor', None)!r}, and "
                "trainer.limit_val_batches=0 turns off the validation that logs it. Expected validation batches, or a "
                "metric of training."
            )


class MonitorCheckCallback(Callback):
    """Refuses monitored metrics that validation does not log, right after the sanity check.

    Checks only if the module and all callbacks belong to Lightning or this package, since others may log more metrics.

    Raises:
        ValueError: After the sanity check, if a monitored metric was not logged.
    """

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run after the sanity check: compares monitored metrics with those that it logged."""
        callbacks = attributes_of(trainer).callbacks
        parts = {type(part).__module__.partition(".")[0] for part in (*callbacks, pl_module)}
        logged = set(trainer.callback_metrics)
        if not logged or parts - _KNOWN_PACKAGES:
            return
        scores = {f"val/{callback.name}" for callback in callbacks if isinstance(callback, CorpusScoreCallback)}
        for callback in callbacks:
            if not isinstance(callback, EarlyStopping | ModelCheckpoint) or (monitor := callback.monitor) is None:
                continue
            is_score = any(monitor.startswith(score) for score in scores)  # scores of groups have a suffix
            if not is_score and monitor not in logged and not monitor.startswith(_TRAINING_METRICS):
                raise ValueError(
                    f"{_CONFLICT} {type(callback).__name__} monitors {monitor!r}, which validation does not log. "
                    f"Expected one of {', '.join(sorted(logged | scores))}."
                )
