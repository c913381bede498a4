import inspect
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch.cli
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from synth2_lightning.compat.lightning import (
    CLASS_PATH_KEY,
    INSTANTIATOR_KEY,
    EpochProgressBar,
    TrainerAttributes,
    attributes_of,
    has_given_hyperparameters,
    is_multiprocessing,
    is_validation_due,
    keep_batches,
    repeat_aborted_validation,
    replace_sigterm_handler,
    request_stop,
    save_also_after_steps,
)


class Model(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=1.0)


def fit(folder: Path, *callbacks: Callback, num_steps: int = 4, ckpt_path: Path | None = None) -> Trainer:
    trainer = Trainer(
        accelerator="cpu", logger=False, max_steps=num_steps, val_check_interval=2, num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, callbacks=list(callbacks),
    )  # fmt: skip
    data: DataLoader[Any] = DataLoader(torch.zeros(9, 1), batch_size=1)  # type: ignore[arg-type]
    trainer.fit(Model(), data, data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def test_every_typed_attribute_of_a_trainer_exists() -> None:
    trainer = Trainer(accelerator="cpu", barebones=True)
    assert {name for name in TrainerAttributes.__annotations__ if not hasattr(attributes_of(trainer), name)} == set()


@dataclass(frozen=True)
class Batch:
    values: torch.Tensor


@pytest.mark.parametrize("precision", ["64-true", "16-true", "bf16-true"])
def test_batches_are_kept_which_the_precision_plugin_refuses(precision: Any) -> None:
    trainer = Trainer(accelerator="cpu", precision=precision, barebones=True)
    batch = Batch(torch.zeros(1))
    with pytest.raises(ValueError, match="frozen"):
        trainer.precision_plugin.convert_input(batch)
    keep_batches(trainer)
    assert trainer.precision_plugin.convert_input(batch) is batch


def test_the_handler_of_sigterm_is_replaced_and_lightnings_does_not_run(tmp_path: Path) -> None:
    received: list[int] = []

    def handle(signum: int, _: FrameType | None) -> None:
        received.append(signum)

    class Signal(Callback):
        def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
            replace_sigterm_handler(trainer, handle)

        def on_train_batch_start(self, *_: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer = fit(tmp_path, Signal())
    assert received == [signal.SIGTERM] * 4
    assert trainer.global_step == 4
    assert not trainer.received_sigterm


def test_a_requested_stop_ends_the_run_after_the_step(tmp_path: Path) -> None:
    steps: list[int] = []

    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            steps.append(trainer.global_step)
            if trainer.global_step == 3:
                request_stop(trainer)

    with pytest.raises(SIGTERMException):
        fit(tmp_path, Stop(), num_steps=8)
    assert steps == [1, 2, 3]


@pytest.mark.filterwarnings("ignore:You.re resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize(("repeats", "expected"), [(False, []), (True, [0, 1, 2])])
def test_an_aborted_validation_is_repeated_from_its_first_batch(
    repeats: bool, expected: list[int], tmp_path: Path
) -> None:
    class Save(Callback):
        def on_exception(self, trainer: Trainer, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / "aborted.ckpt")

    class Stop(Callback):
        def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
            request_stop(trainer)

    class Note(Callback):
        def on_train_start(self, trainer: Trainer, *_: Any) -> None:
            if repeats:
                repeat_aborted_validation(trainer)

        def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
            validated.append(args[3])

    validated: list[int] = []
    with pytest.raises(SIGTERMException):
        fit(tmp_path, Stop(), Save(), num_steps=3)
    fit(tmp_path, Note(), num_steps=3, ckpt_path=tmp_path / "aborted.ckpt")
    assert validated[:3] == expected  # if Lightning repeats it, remove the function


def test_validations_are_foreseen(tmp_path: Path) -> None:
    foreseen: list[bool] = []

    class Look(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            foreseen.append(is_validation_due(trainer))

    fit(tmp_path, Look(), num_steps=6)
    assert foreseen == [False, True, False, True, False, True]


def test_a_callback_saves_after_steps_and_after_validations(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"every_n_train_steps=1.*every_n_epochs=1"):
        ModelCheckpoint(every_n_train_steps=1, every_n_epochs=1)
    callback = ModelCheckpoint(tmp_path, "{step}", monitor="step", mode="max", save_top_k=-1)
    save_also_after_steps(callback)
    fit(tmp_path, callback, num_steps=3)
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["step=1.ckpt", "step=2.ckpt", "step=3.ckpt"]
    assert "'every_n_epochs': 1" in callback.state_key


@pytest.mark.parametrize(("strategy", "expected"), [("ddp_spawn", True), ("ddp_fork", True), ("ddp", False)])
def test_strategies_that_start_processes_by_multiprocessing(strategy: str, expected: bool) -> None:
    trainer = Trainer(accelerator="cpu", devices=2, strategy=strategy, barebones=True)
    assert is_multiprocessing(trainer.strategy) == expected


def test_the_command_line_records_modules_under_these_keys() -> None:
    source = inspect.getsource(lightning.pytorch.cli)
    assert f'"{INSTANTIATOR_KEY}"' in source
    assert f'"{CLASS_PATH_KEY}"' in source


@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
@pytest.mark.parametrize(
    ("bar", "limit", "expected"),
    [
        (EpochProgressBar(), {"max_steps": 2}, "Epoch 0   "),  # as long as "Validation"
        (EpochProgressBar(), {"max_epochs": 1}, "Epoch 0/0 "),
        (RichProgressBar(), {"max_steps": 2}, "Epoch 0/-2"),  # if Lightning shows no limit, remove the override
    ],
)
def test_a_bar_shows_no_last_epoch_without_a_limit(bar: RichProgressBar, limit: dict[str, Any], expected: str) -> None:
    shown = []

    class Record(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            shown.append(bar.train_progress_bar.description)

    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False,
        callbacks=[bar, Record()], limit_val_batches=0, **limit,
    )  # fmt: skip
    data: DataLoader[Any] = DataLoader(torch.zeros(2, 1), batch_size=1)  # type: ignore[arg-type]
    trainer.fit(Model(), data, data)
    assert shown == [expected] * 2


def test_the_command_line_gives_hyperparameters_to_the_modules_that_it_constructs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bool] = []

    class Recorded(Model):
        def __init__(self) -> None:
            super().__init__()
            seen.append(has_given_hyperparameters())

    monkeypatch.setattr("sys.argv", ["fit"])
    settings = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    lightning.pytorch.cli.LightningCLI(Recorded, run=False, seed_everything_default=False, trainer_defaults=settings)
    Recorded()
    assert seen == [True, False]
