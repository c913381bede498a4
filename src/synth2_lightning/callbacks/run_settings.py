"""The settings that a run was trained with: saved in its checkpoints, and compared when training resumes from one."""

import json
from collections.abc import Iterator, Mapping, Sequence
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

from synth2_lightning.callbacks.weight_averaging import WeightAveragingCallback

RECORD = "run_settings"
"""Key of the record in a checkpoint."""
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
_EVALUATION_DATA = {"val", "test", "predict", "val_batch_size", "num_workers", "max_bad_pictures"}
"""Arguments of datamodules that no training batch depends on."""
_OPTIMIZATION = {"optimizer", "lr_scheduler", "generation", "compile_trained"}
"""Arguments of modules that are no part of the network."""
_OPTIMIZER_CLASS = "model.init_args.optimizer.class_path"
_MOST_LINES = 20
_MOST_CHARACTERS = 60
_NO_RECORD = "the checkpoint records no settings"

Settings = dict[str, Any]


def collect_settings(config: Mapping[str, Any], trainer: Trainer) -> Settings:
    """Return what a run's training depends on, as plain values for its checkpoints.

    Args:
        config: All settings of the command line, as plain values.
        trainer: The one that was built from them.

    Returns:
        ``exact``: settings that a resumed run must share to end as if it had not been stopped. ``other``: settings that
        may change between stop and resume, such as the number of processes and the length of the run.
    """
    model, data, settings = config.get("model") or {}, config.get("data") or {}, config.get("trainer") or {}
    arguments = dict(model.get("init_args") or {})
    generation = arguments.pop("generation", None)
    return {
        "exact": {
            "seed_everything": config.get("seed_everything"),
            "model": {**model, "init_args": arguments},
            "data": _without(data, _EVALUATION_DATA),
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


def list_changes(checkpoint: Mapping[str, Any], settings: Settings) -> list[str]:
    """Return one line for each setting that breaks an exact resume; none if training would resume exactly.

    Args:
        checkpoint: Content of a checkpoint; nothing in it is built or called.
        settings: Of the present run, from :func:`collect_settings`.

    Example:
        >>> saved = {RECORD: {"exact": {"data": {"batch_size": 8}}}}
        >>> list_changes(saved, {"exact": {"data": {"batch_size": 4}}})
        ['data.batch_size: 8 -> 4']
    """
    record = checkpoint.get(RECORD)
    if not isinstance(record, Mapping) or not isinstance(record.get("exact"), Mapping):
        return [_NO_RECORD]
    return list(_compare(record["exact"], settings["exact"]))


def list_network_changes(checkpoint: Mapping[str, Any], settings: Settings) -> list[str]:
    """Return one line for each setting of the network that differs; for ``validate``, ``test`` and ``predict``.

    Example:
        >>> list_network_changes({}, {"exact": {"model": {}}})
        []
    """
    record = checkpoint.get(RECORD)
    exact = record.get("exact") if isinstance(record, Mapping) else None
    saved = exact.get("model") if isinstance(exact, Mapping) else None
    if not isinstance(saved, Mapping):
        return []  # weights that do not fit are refused when they are loaded
    return list(_compare({"model": _without(saved, _OPTIMIZATION)}, _network(settings)))


def format_changes(changes: Sequence[str]) -> str:
    """Return the lines of :func:`list_changes` for a message, shortened where there are many."""
    lines = [*changes[:_MOST_LINES], f"and {len(changes) - _MOST_LINES} more"][: len(changes)]
    return "".join(f"\n  {line}" for line in lines)


def explain_network_changes(path: object, changes: Sequence[str]) -> str:
    """Return the message that refuses to evaluate another network than the one that was trained."""
    return (
        f"The network differs from that of the checkpoint {path} (saved -> now):{format_changes(changes)}\nExpected "
        "the network that was trained, as in the config.yaml of its run; or name the checkpoint that is meant by "
        "--ckpt_path PATH."
    )


def explain_changes(path: object, changes: Sequence[str]) -> str:
    """Return the message that refuses to resume with other settings."""
    return (
        f"The settings differ from those that the checkpoint {path} was trained with (saved -> now):"
        f"{format_changes(changes)}\nExpected the same settings, with which a run resumes exactly. Restore them; or "
        "resume with the changes, as a run of its own, by --resume_with_changes=true; or name another checkpoint by "
        "--ckpt_path PATH; or start a new run without --ckpt_path."
    )


class RunSettingsCallback(Callback):
    """Saves the settings of a run in its checkpoints, and compares them when ``fit`` resumes from one.

    Settings are compared line by line. A change that breaks an exact resume is refused, unless changes are allowed;
    then it is logged, and the optimizer takes its present settings instead of those in the checkpoint. The training
    data is compared by its fingerprint.

    Args:
        settings: From :func:`collect_settings`.
        allows_changes: Resume although settings or data differ.

    Example:
        >>> RunSettingsCallback({"exact": {}, "other": {}}).allows_changes
        False
    """

    def __init__(self, settings: Settings, allows_changes: bool = False) -> None:
        self.settings = settings
        self.allows_changes = allows_changes
        self._changes: list[str] = []
        self._logged: set[str] = set()
        self._groups: list[list[dict[str, Any]]] = []
        self._is_trained = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the settings, and the fingerprint of the training data."""
        checkpoint[RECORD] = {**self.settings, "data": _fingerprint(trainer) if trainer.is_global_zero else None}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Compare settings and training data.

        Raises:
            ValueError: If they differ in what an exact resume depends on.
        """
        self.check(trainer.ckpt_path, checkpoint)
        record = checkpoint.get(RECORD)
        saved, present = record.get("data") if isinstance(record, Mapping) else None, _fingerprint(trainer)
        if isinstance(saved, Mapping) and present is not None:
            self._judge(trainer.ckpt_path, list(_compare(saved, present, "training data")))

    def check(self, path: object, checkpoint: Mapping[str, Any]) -> None:
        """Compare the settings in a checkpoint with the present ones, and log what may differ.

        Raises:
            ValueError: If they differ in what an exact resume depends on.
        """
        changes = list_changes(checkpoint, self.settings)
        if changes == [_NO_RECORD]:
            self._warn(
                f"The checkpoint {path} records no settings, as one of a notebook: whether they differ is unknown."
            )
            return
        self._judge(path, changes)
        record = checkpoint[RECORD]
        if others := list(_compare(record.get("other"), self.settings["other"])):
            self._log(
                f"Resuming with other settings than those of the checkpoint (saved -> now):{format_changes(others)}"
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the settings of the optimizers, before a checkpoint replaces them."""
        self._is_trained = False
        self._groups = [
            [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the optimizers their present settings, where changes are allowed."""
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
        """Say that the run was finished before."""
        if trainer.ckpt_path and not self._is_trained:
            rank_zero_info(
                f"The run of {trainer.ckpt_path} is finished: it has {trainer.global_step} steps, with "
                f"max_steps={trainer.max_steps} and max_epochs={trainer.max_epochs}. Nothing was trained or saved. "
                "Raise the limit to train on, or start a new run without --ckpt_path."
            )

    def _judge(self, path: object, changes: Sequence[str]) -> None:
        if not changes:
            return
        if not self.allows_changes:
            raise ValueError(explain_changes(path, changes))
        if any(line.startswith(_OPTIMIZER_CLASS) for line in changes):
            raise ValueError(
                f"The optimizer's state in {path} is of another class ({format_changes(changes).strip()}). Expected "
                "the same class; to start a new run with the weights alone, use InitialWeightsCallback."
            )
        self._changes += changes
        self._warn(
            f"Resuming from {path} with changes, as --resume_with_changes=true allows: the run will differ from one "
            f"that was not stopped (saved -> now):{format_changes(changes)}"
        )

    def _warn(self, text: str) -> None:
        if text not in self._logged:
            self._logged.add(text)
            rank_zero_warn(text)

    def _log(self, text: str) -> None:
        if text not in self._logged:
            self._logged.add(text)
            rank_zero_info(text)


def _fingerprint(trainer: Trainer) -> dict[str, Any] | None:
    fingerprint = getattr(trainer.datamodule, "fingerprint", None)  # type: ignore[attr-defined]  # Lightning's own
    return fingerprint() if callable(fingerprint) else None


def _network(settings: Settings) -> Settings:
    return {"model": _without(settings["exact"]["model"], _OPTIMIZATION)}


def _without(node: Any, names: set[str]) -> Any:
    """Leave arguments out of a class spec, and of those below it."""
    if not isinstance(node, Mapping):
        return node
    return {name: _without(value, names) for name, value in node.items() if name not in names}


def _training_callbacks(specs: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for spec in [specs] if isinstance(specs, Mapping) else specs:
        class_ = locate(str(spec.get("class_path")))  # of the present settings, which were built already
        if isinstance(class_, type) and issubclass(class_, _TRAINING_CALLBACKS):
            yield class_.__name__, spec.get("init_args") or {}


def _compare(saved: Any, present: Any, place: str = "") -> Iterator[str]:
    """Go through the present settings: what was saved may come from elsewhere, and may be of any depth."""
    if isinstance(saved, Mapping) and isinstance(present, Mapping):
        if saved.get("class_path") != present.get("class_path"):
            yield f"{place}.class_path: {_show(saved.get('class_path'))} -> {_show(present.get('class_path'))}"
            return
        for name in present:
            yield from _compare(saved.get(name), present[name], f"{place}.{name}".strip("."))
        for name in sorted(str(name) for name in saved.keys() - present.keys() if saved[name] is not None):
            yield f"{place}.{_show(name)[1:-1]}: {_show(saved.get(name))} -> none"
    elif _is_list(saved) and _is_list(present) and len(saved) == len(present):
        for number, (one, other) in enumerate(zip(saved, present, strict=True)):
            yield from _compare(one, other, f"{place}[{number}]")
    elif _is_other(saved, present):
        yield f"{place}: {_show(saved)} -> {_show(present)}"


def _is_other(saved: Any, present: Any) -> bool:
    are_numbers = {type(saved), type(present)} == {int, float}
    return (type(saved) is not type(present) and not are_numbers) or bool(saved != present)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _show(value: Any) -> str:
    """A value in one short line, without control characters."""
    if isinstance(value, Mapping):
        name = value.get("class_path")
        return _show(name) if isinstance(name, str) else f"{len(value)} values"
    if _is_list(value):
        return f"a list of {len(value)}"
    if value is None:
        return "none"
    if isinstance(value, str):
        text = json.dumps(value[: _MOST_CHARACTERS + 1])
    elif isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= _MOST_CHARACTERS):
        text = json.dumps(value)
    else:
        text = type(value).__name__
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."
