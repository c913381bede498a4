"""Checkpoints that must not be resumed from or selected as the best, and incompatible trainer settings.

``KINDS`` lists them: each is refused by a message for users.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from drivers import read_refusal
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)

from synth2_lightning.callbacks.checkpoint_io import find_checkpoint_to_resume
from synth2_lightning.callbacks.last_checkpoint import LastCheckpointCallback
from synth2_lightning.callbacks.run_settings import RunSettingsCallback
from synth2_lightning.callbacks.settings_changes import RECORD, explain_changes, list_changes
from synth2_lightning.callbacks.trainer_settings import MonitorCheckCallback, check_trainer_settings
from synth2_lightning.io.checkpoint_files import find_best_checkpoint
from synth2_lightning.io.locations import find_checkpoint
from synth2_lightning.training.sharding import check_launcher

SETTINGS: dict[str, Any] = {
    "exact": {
        "seed_everything": 7,
        "model": {"class_path": "M", "init_args": {"optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.1}}}},
        "data": {"class_path": "D", "init_args": {"batch_size": 4}},
        "trainer": {"precision": "32-true", "accumulate_grad_batches": 1},
    },
    "other": {"trainer": {"max_steps": 20}},
}


def scored(
    folder: Path, name: str, value: object, step: int = 1, monitor: str = "val/cider", mode: str = "max"
) -> Path:
    """Write a checkpoint in which ModelCheckpoint recorded a score for the file itself."""
    key = f"ModelCheckpoint{{'monitor': '{monitor}', 'mode': '{mode}', 'every_n_train_steps': 0}}"
    state = {"monitor": monitor, "best_k_models": {f"/elsewhere/{name}": value}, "dirpath": "/elsewhere"}
    torch.save({"global_step": step, "callbacks": {key: state}}, folder / name)
    return folder / name


def resume(saved: object, allows_changes: bool = False) -> None:
    RunSettingsCallback(SETTINGS, allows_changes).check("bad.ckpt", {RECORD: saved})


def change(*path: str, value: object) -> dict[str, Any]:
    content: dict[str, Any] = pickle.loads(pickle.dumps(SETTINGS))
    node = content["exact"]
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    return content


def last_of(folder: Path, saved: object) -> None:
    torch.save({"global_step": 3, RECORD: saved}, folder / "bad.ckpt")
    found = find_checkpoint_to_resume([folder], lambda content: list_changes(content, SETTINGS))
    assert found is not None
    if found[1]:
        raise_as_cli(found)


def raise_as_cli(found: tuple[Path, list[str]]) -> None:
    RunSettingsCallback(SETTINGS)._handle_changes(*found)


def trainer(*callbacks: Any, is_resumed: bool = False, **settings: Any) -> None:
    options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, **settings}
    built = Trainer(callbacks=list(callbacks), **options)
    check_launcher(built.strategy)
    check_trainer_settings(built, is_resumed)


def monitored(callback: Any) -> None:
    """Run the check at the end of a sanity check that logged a loss."""
    public = {"callbacks": [callback], "datamodule": None, "fast_dev_run": False, "overfit_batches": 0.0}
    state = Mock(spec=Trainer, callback_metrics={"val/loss": torch.tensor(1.0)}, **public)
    MonitorCheckCallback().on_sanity_check_end(state, LightningModule())


def damaged(folder: Path, name: str = "best-bad.ckpt") -> Path:
    path = scored(folder, name, 0.9)
    path.write_bytes(path.read_bytes()[:-50])
    return path


def best_of(folder: Path, _damaged: Path, scores: dict[str, float]) -> Path:
    """Return the best checkpoint of a folder whose last checkpoint records the scores of others."""
    state = {"monitor": "val/cider", "best_k_models": scores}
    torch.save({"global_step": 9, "callbacks": {"ModelCheckpoint{'mode': 'max'}": state}}, folder / "last.ckpt")
    return find_checkpoint(folder)


def loop() -> dict[str, Any]:
    content: dict[str, Any] = {"exact": {"seed_everything": 1}}
    content["exact"]["data"] = content["exact"]
    return content


def deep() -> dict[str, Any]:
    content: dict[str, Any] = {}
    for _ in range(200):
        content = {"init_args": content}
    return {"exact": {"data": content}}


KINDS: dict[str, Callable[[Path], object]] = {
    "resume: another seed": lambda folder: resume(change("seed_everything", value=8)),
    "resume: no seed": lambda folder: resume(change("seed_everything", value=None)),
    "resume: another batch size": lambda folder: resume(change("data", "init_args", "batch_size", value=8)),
    "resume: other data": lambda folder: resume(change("data", "class_path", value="E")),
    "resume: another precision": lambda folder: resume(change("trainer", "precision", value="16-mixed")),
    "resume: other accumulation": lambda folder: resume(change("trainer", "accumulate_grad_batches", value=2)),
    "resume: a setting more": lambda folder: resume(change("trainer", "sync_batchnorm", value=True)),
    "resume: another optimizer, though changes are allowed": lambda folder: resume(
        change("model", "init_args", "optimizer", "class_path", value="Muon"), allows_changes=True
    ),
    "settings: a tensor in place of a number": lambda folder: resume(change("seed_everything", value=torch.ones(3))),
    "settings: a text in place of a number": lambda folder: resume(change("seed_everything", value="7")),
    "settings: true in place of one": lambda folder: resume(change("trainer", "accumulate_grad_batches", value=True)),
    "settings: a number in place of the data": lambda folder: resume(change("data", value=3)),
    "settings: escape codes": lambda folder: resume(change("seed_everything", value="\x1b[2J" * 99)),
    "settings: escape codes in a name": lambda folder: resume(change("data", "init_args", "\x1b[2J", value=1)),
    "settings: a name that is a number": lambda folder: resume(change("data", "init_args", 3, value=1)),  # type: ignore[arg-type]
    "settings: a number of many digits": lambda folder: resume(change("seed_everything", value=10**9999)),
    "settings: a text of a megabyte": lambda folder: resume(change("seed_everything", value="a" * 2**20)),
    "settings: recursive": lambda folder: resume(loop()),
    "settings: nest": lambda folder: resume(deep()),
    "settings: nothing": lambda folder: resume({"exact": {}}),
    "last: other settings": lambda folder: last_of(folder, change("data", "init_args", "batch_size", value=8)),
    "last: no settings recorded": lambda folder: last_of(folder, None),
    "last: settings that are a list": lambda folder: last_of(folder, [1, 2]),
    "last: settings without values": lambda folder: last_of(folder, {"exact": 3}),
    "best: damaged": lambda folder: (scored(folder, "best-other.ckpt", 0.5), damaged(folder), find_checkpoint(folder)),
    "best: damaged, and the last is good": lambda folder: best_of(folder, damaged(folder), {}),
    "best: damaged under a name of the last": lambda folder: best_of(
        folder, damaged(folder, "step=3-bad.ckpt"), {"step=3-bad.ckpt": 0.9}
    ),
    "best: all are damaged": lambda folder: (damaged(folder, "last-bad.ckpt"), find_checkpoint(folder)),
    "trainer: ddp_spawn": lambda folder: trainer(strategy="ddp_spawn", devices=2),
    "trainer: ddp_fork": lambda folder: trainer(strategy="ddp_fork", devices=2),
    "trainer: ddp_notebook": lambda folder: trainer(strategy="ddp_notebook", devices=2),
    "trainer: spawn with unused parameters": lambda folder: trainer(
        strategy="ddp_spawn_find_unused_parameters_true", devices=2
    ),
    "trainer: LearningRateFinder": lambda folder: trainer(LearningRateFinder()),
    "trainer: BatchSizeFinder": lambda folder: trainer(BatchSizeFinder()),
    "trainer: StochasticWeightAveraging": lambda folder: trainer(StochasticWeightAveraging(1e-2)),
    "trainer: overfit_batches": lambda folder: trainer(overfit_batches=2),
    "trainer: no batch in a step": lambda folder: trainer(accumulate_grad_batches=0),
    "trainer: fast_dev_run with a checkpoint": lambda folder: trainer(fast_dev_run=True, is_resumed=True),
    "trainer: EarlyStopping without validation": lambda folder: trainer(EarlyStopping("val/loss"), limit_val_batches=0),
    "trainer: EarlyStopping on a missing metric": lambda folder: monitored(EarlyStopping("val_loss")),
    "trainer: ModelCheckpoint on a missing metric": lambda folder: monitored(ModelCheckpoint(monitor="val/ciderr")),
    "trainer: barebones with a callback": lambda folder: Trainer(barebones=True, callbacks=[ModelCheckpoint()]),
    "trainer: barebones with a logger": lambda folder: Trainer(barebones=True, logger=True),
    "trainer: an unknown profiler": lambda folder: Trainer(accelerator="cpu", profiler="fast"),
    "trainer: an interval of more than one": lambda folder: Trainer(accelerator="cpu", val_check_interval=1.5),
    "trainer: half a batch": lambda folder: Trainer(accelerator="cpu", limit_train_batches=-1),
    "folder: of another run": lambda folder: replace_run(folder),
}


def replace_run(folder: Path) -> None:
    torch.save({"global_step": 8}, folder / "step=8-bad.ckpt")
    callback = LastCheckpointCallback(str(folder))
    callback.on_train_start(Mock(spec=Trainer, ckpt_path=None, global_step=0), LightningModule())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_resume_is_refused_with_a_message(kind: str, tmp_path: Path) -> None:
    message = read_refusal(KINDS[kind], tmp_path)
    assert len(message) < 3000
    assert message.replace("\n", "").isprintable()


def test_the_lines_are_few_where_many_settings_differ() -> None:
    saved = change("data", "init_args", value={f"argument_{number}": number for number in range(1000)})
    message = explain_changes("bad.ckpt", list_changes({RECORD: saved}, SETTINGS))
    assert "and 981 more" in message
    assert len(message.splitlines()) == 23


def test_the_best_has_the_best_score_independent_of_times_and_other_runs(tmp_path: Path) -> None:
    low, high = scored(tmp_path, "best-step=9.ckpt", torch.tensor(0.5), 9), scored(tmp_path, "best-step=3.ckpt", 0.7, 3)
    assert find_checkpoint(tmp_path) == high
    low.touch()
    assert find_checkpoint(tmp_path) == high
    (tmp_path / "checkpoints").mkdir()
    # Of the same step, with the score of another monitor.
    scored(tmp_path, "zzz.ckpt", 99.0, 3, monitor="val/other")
    assert find_best_checkpoint(tmp_path, "val/cider") == high
    assert find_best_checkpoint(tmp_path, "val/other") == tmp_path / "zzz.ckpt"


def test_the_smallest_loss_is_the_best(tmp_path: Path) -> None:
    for step, value in ((1, 3.0), (2, 1.0), (3, 2.0)):
        scored(tmp_path, f"best-step={step}.ckpt", torch.tensor(value), step, "val/loss", "min")
    assert find_checkpoint(tmp_path).name == "best-step=2.ckpt"


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        10**400,
        torch.tensor(torch.nan),
        torch.empty(1, device="meta"),
        torch.ones(2),
        "9",
        None,
    ],
)
def test_a_score_that_is_no_number_is_no_score(value: object, tmp_path: Path) -> None:
    good = scored(tmp_path, "best-step=1.ckpt", 0.1)
    scored(tmp_path, "best-step=2.ckpt", value, 2)
    assert find_checkpoint(tmp_path) == good


def test_a_score_recorded_for_another_file_does_not_override_that_files_own(tmp_path: Path) -> None:
    good = scored(tmp_path, "best-step=2.ckpt", 0.4, 2)
    other = scored(tmp_path, "best-step=1.ckpt", 0.3, 1)
    key = "ModelCheckpoint{'monitor': 'val/cider', 'mode': 'max'}"
    claims = {str(other): torch.tensor(0.9), str(tmp_path.parent / "gone.ckpt"): torch.tensor(1.0)}
    state = {"monitor": "val/cider", "best_k_models": claims, "best_model_path": "/etc/passwd"}
    torch.save({"global_step": 3, "callbacks": {key: state}}, tmp_path / "last.ckpt")
    assert find_checkpoint(tmp_path) == good


def test_without_scores_the_best_by_name_is_taken_and_else_the_one_with_the_most_steps(tmp_path: Path) -> None:
    for step in (9, 10):
        torch.save({"global_step": step}, tmp_path / f"step={step}.ckpt")
    assert find_checkpoint(tmp_path).name == "step=10.ckpt"
    torch.save({"global_step": 2}, tmp_path / "best-step=2.ckpt")
    assert find_checkpoint(tmp_path).name == "best-step=2.ckpt"
