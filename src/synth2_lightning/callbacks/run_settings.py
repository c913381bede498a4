"""The settings that a run was trained with: saved in its checkpoints and compared on resume."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pydoc import locate
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    GradientAccumulationScheduler,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.optim.lr_scheduler import LRScheduler

from synth2_lightning.callbacks.settings_changes import (
    NO_RECORD,
    RECORD,
    Settings,
    compare,
    drop_arguments,
    explain_changes,
    format_changes,
    list_changes,
)
from synth2_lightning.callbacks.weight_averaging import WeightAveragingCallback
from synth2_lightning.compat.lightning import attributes_of

_TRAINER = (
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "limit_train_batches",
    "overfit_batches",
    "reload_dataloaders_every_n_epochs",
    "sync_batchnorm",
    "use_distributed_sampler",
    "plugins",
)
"""Settings of the trainer that change what a training step computes."""
_LENGTH = ("max_steps", "max_epochs", "min_steps", "min_epochs", "max_time")
_TRAINING_CALLBACKS = (
    BaseFinetuning,
    GradientAccumulationScheduler,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
    WeightAveragingCallback,
)
"""Callbacks that change weights or gradients; all others only observe."""
_EVALUATION_DATA = {"val", "test", "predict", "val_batch_size", "num_workers", "max_bad_images"}
"""Arguments of datamodules that do not change training batches."""
_OPTIMIZER_CLASS = "model.init_args.optimizer.class_path"


def collect_settings(config: Mapping[str, Any], trainer: Trainer) -> Settings:
    """Return the settings that a run's training depends on, as plain values for its checkpoints.

    Args:
        config: All settings of the command line, as plain values.
        trainer: The trainer that was built from them.

    Returns:
        ``exact``: settings that a resumed run must share to end as if it had not been stopped. ``other``: settings that
        may change between stop and resume, such as the number of processes and the length of the run.
    """
    model, data, settings = config.get("model") or {}, config.get("data") or {}, config.get("trainer") or {}
    arguments = dict(model.get("init_args") or {})
    generation = arguments.pop("generation", None)
    arguments.pop("export_to", None)
    return {
        "exact": {
            "seed_everything": config.get("seed_everything"),
            "model": {**model, "init_args": arguments},
            "data": drop_arguments(data, _EVALUATION_DATA),
            "trainer": {"precision": str(trainer.precision), **{name: settings.get(name) for name in _TRAINER}},
            "callbacks": dict(_training_callbacks(settings.get("callbacks") or [])),
        },
        "other": {
            "model": {"init_args": {"generation": generation}},
            "trainer": {
                **{name: settings.get(name) for name in _LENGTH},
                "accelerator": type(trainer.accelerator).__name__,
                "strategy": type(trainer.strategy).__name__,
                "devices * num_nodes": trainer.num_devices * trainer.num_nodes,
            },
        },
    }


class RunSettingsCallback(Callback):
    """Saves the settings of a run in its checkpoints, and compares them when ``fit`` resumes from one.

    A change that breaks an exact resume is refused, unless changes are allowed. Allowed changes are logged, and the
    optimizer keeps its present settings instead of those in the checkpoint. Training data is compared by fingerprint.

    Args:
        settings: Settings of the present run, from :func:`collect_settings`.
        allows_changes: Resume although settings or data differ.

    Raises:
        ValueError: On resume, if a difference breaks an exact resume, and changes are not allowed.
    """

    def __init__(self, settings: Settings, allows_changes: bool = False) -> None:
        self.settings = settings
        self.allows_changes = allows_changes
        self._changes: list[str] = []
        self._logged: set[str] = set()
        self._groups: list[list[dict[str, Any]]] = []
        self._is_trained = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Run when a checkpoint is saved: adds the settings and the fingerprint of the training data."""
        checkpoint[RECORD] = {**self.settings, "data": _fingerprint(trainer) if trainer.is_global_zero else None}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Run when a checkpoint is loaded: compares settings and training data."""
        self.check(trainer.ckpt_path, checkpoint)
        record = checkpoint.get(RECORD)
        saved, present = record.get("data") if isinstance(record, Mapping) else None, _fingerprint(trainer)
        if isinstance(saved, Mapping) and present is not None:
            self._handle_changes(trainer.ckpt_path, list(compare(saved, present, "training data")))

    def check(self, path: object, checkpoint: Mapping[str, Any]) -> None:
        """Compare the settings in a checkpoint with the present ones, and log those that may differ.

        Raises:
            ValueError: If a difference breaks an exact resume, and changes are not allowed.
        """
        changes = list_changes(checkpoint, self.settings)
        if changes == [NO_RECORD]:
            self._tell_once(
                rank_zero_warn,
                f"The checkpoint {path} contains no settings, as if saved in a notebook. They cannot be compared with "
                "the present ones.",
            )
            return
        self._handle_changes(path, changes)
        if other := list(compare(checkpoint[RECORD].get("other"), self.settings["other"])):
            self._tell_once(
                rank_zero_info,
                f"Resuming with other settings than those of the checkpoint (saved -> now):{format_changes(other)}",
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the start of a fit: stores the settings of the optimizers, before a checkpoint replaces them."""
        self._is_trained = False
        self._groups = [
            [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run before the first step: restores the present settings of the optimizers, if changes are allowed."""
        self._is_trained = True
        if not self._changes:
            return
        for optimizer, groups in zip(trainer.optimizers, self._groups, strict=True):
            for group, given in zip(optimizer.param_groups, groups, strict=True):
                peak = group.get("initial_lr")
                factor = group["lr"] / peak if peak and "initial_lr" in given else 1.0  # of the schedule at this step
                group.update({**given, "lr": given.get("initial_lr", given["lr"]) * factor})
        for entry in trainer.lr_scheduler_configs:
            if isinstance(entry.scheduler, LRScheduler):
                entry.scheduler.base_lrs = [group["initial_lr"] for group in entry.scheduler.optimizer.param_groups]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the end of a fit: logs that the resumed run had already finished, if it had."""
        if trainer.ckpt_path and not self._is_trained:
            rank_zero_info(
                f"The run of {trainer.ckpt_path} is finished: it has {trainer.global_step} steps, with "
                f"max_steps={trainer.max_steps} and max_epochs={trainer.max_epochs}. Nothing was trained or saved. "
                "Raise the limit to continue training, or start a new run without --ckpt_path."
            )

    def _handle_changes(self, path: object, changes: Sequence[str]) -> None:
        if not changes:
            return
        if not self.allows_changes:
            raise ValueError(explain_changes(path, changes))
        if any(line.startswith(_OPTIMIZER_CLASS) for line in changes):
            raise ValueError(
                f"The optimizer state in {path} is of another class ({format_changes(changes).strip()}). Expected "
                "the same class. To start a new run with the weights alone, use InitialWeightsCallback."
            )
        self._changes += changes
        self._tell_once(
            rank_zero_warn,
            f"Resuming from {path} with changes, as --resume_with_changes=true allows. The run will differ from one "
            f"that was not stopped (saved -> now):{format_changes(changes)}",
        )

    def _tell_once(self, log: Callable[[str], None], text: str) -> None:
        if text not in self._logged:
            self._logged.add(text)
            log(text)


def _fingerprint(trainer: Trainer) -> dict[str, Any] | None:
    fingerprint = getattr(attributes_of(trainer).datamodule, "fingerprint", None)
    return fingerprint() if callable(fingerprint) else None


def _training_callbacks(specs: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for spec in [specs] if isinstance(specs, Mapping) else specs:
        class_ = locate(str(spec.get("class_path")))  # safe: the command line has already built these classes
        if isinstance(class_, type) and issubclass(class_, _TRAINING_CALLBACKS):
            yield class_.__name__, spec.get("init_args") or {}
