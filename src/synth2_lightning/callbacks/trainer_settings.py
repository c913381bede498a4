"""Settings of the trainer that do not go together with this package, refused before anything is trained."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)

from synth2_lightning.callbacks.corpus_score import CorpusScoreCallback

_INSTEAD: dict[type[Callback], str] = {
    BatchSizeFinder: (
        "which changes the batch size behind the settings that are saved with the run; set data.init_args.batch_size"
    ),
    LearningRateFinder: (
        "which looks for an attribute `lr` that no module here has, because the optimizer is an argument; set "
        "model.init_args.optimizer.init_args.lr"
    ),
    StochasticWeightAveraging: (
        "which copies the whole module before its weights are there, and replaces its schedule; use "
        "synth2_lightning.callbacks.weight_averaging.WeightAveragingCallback"
    ),
}
_KNOWN_PACKAGES = {"lightning", "synth2_lightning"}
_TRAINING_METRICS = ("train/", "data/", "speed/", "epoch", "step")
_CONFLICT = "The trainer's settings do not go together:"


def refuse_settings(trainer: Trainer, is_resumed: bool) -> None:
    """Refuse what could only fail, or change the run silently, minutes later.

    Args:
        trainer: As it was built.
        is_resumed: Whether ``fit`` is to resume from a checkpoint.

    Raises:
        ValueError: If a setting does not go with this package, or with another one.

    Example:
        >>> refuse_settings(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), is_resumed=False)
    """
    overfit_batches: float = trainer.overfit_batches  # type: ignore[attr-defined]  # Lightning's own
    if overfit_batches:
        raise ValueError(
            f"{_CONFLICT} trainer.overfit_batches={overfit_batches} replaces the sampler, which composes whole "
            "batches here. Expected 0; to train on a few pairs, give the source or the shards a `limit`."
        )
    if trainer.accumulate_grad_batches < 1:
        raise ValueError(
            f"{_CONFLICT} trainer.accumulate_grad_batches={trainer.accumulate_grad_batches} leaves no optimization "
            "step. Expected 1 or more batches per step."
        )
    if trainer.fast_dev_run and is_resumed:  # type: ignore[attr-defined]  # Lightning's own
        raise ValueError(
            f"{_CONFLICT} trainer.fast_dev_run is a run of {trainer.max_steps} steps that saves nothing, so it resumes "
            "from nothing. Expected it without --ckpt_path."
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning's own
        for class_, reason in _INSTEAD.items():
            if isinstance(callback, class_):
                raise ValueError(f"{_CONFLICT} the callbacks hold {class_.__name__}, {reason} instead.")
        waits_for_validation = (
            isinstance(callback, EarlyStopping)
            and callback.strict
            and trainer.limit_val_batches == 0
            and not callback.monitor.startswith(_TRAINING_METRICS)
        )
        if waits_for_validation:
            raise ValueError(
                f"{_CONFLICT} EarlyStopping monitors {getattr(callback, 'monitor', None)!r}, and "
                "trainer.limit_val_batches=0 leaves out the validation that would log it. Expected validation batches, "
                "or a metric of training."
            )


class MonitorCheckCallback(Callback):
    """Refuses a monitored metric that validation does not log, after the sanity check instead of the first validation.

    Only where all callbacks and the module are Lightning's or this package's: others may log more.

    Example:
        >>> MonitorCheckCallback().state_dict()
        {}
    """

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare monitored metrics with those that the sanity check logged.

        Raises:
            ValueError: If one is missing.
        """
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning's own
        parts = {type(part).__module__.partition(".")[0] for part in (*callbacks, pl_module)}
        logged = set(trainer.callback_metrics)
        if not logged or parts - _KNOWN_PACKAGES:
            return
        scores = {f"val/{callback.name}" for callback in callbacks if isinstance(callback, CorpusScoreCallback)}
        for callback in callbacks:
            if not isinstance(callback, EarlyStopping | ModelCheckpoint) or (monitor := callback.monitor) is None:
                continue
            is_score = any(monitor.startswith(score) for score in scores)  # of groups, too
            if not is_score and monitor not in logged and not monitor.startswith(_TRAINING_METRICS):
                raise ValueError(
                    f"{_CONFLICT} {type(callback).__name__} monitors {monitor!r}, which validation does not log. "
                    f"Expected one of {', '.join(sorted(logged | scores))}."
                )
