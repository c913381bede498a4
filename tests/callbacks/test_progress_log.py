from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader

from synth2_lightning.callbacks import progress_log
from synth2_lightning.callbacks.last_checkpoint import LastCheckpointCallback
from synth2_lightning.callbacks.progress_log import ProgressLogCallback

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`", "ignore:The .* does not have many")


class Model(LightningModule):
    """Module with steps of ten seconds on the replaced clock."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        Clock.now += 10
        loss = self.weight.sum()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        Clock.now += 10
        self.log("val/loss", torch.tensor(2.5), prog_bar=True)

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        Clock.now += 10

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        Clock.now += 10
        return batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=0.0)


class Clock:
    now = 0.0


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of logged lines, without a terminal."""
    logged: list[str] = []
    Clock.now = 100.0
    monkeypatch.setattr(progress_log, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(progress_log, "rank_zero_info", logged.append)
    set_terminal(monkeypatch, False)
    return logged


def set_terminal(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    console = Console(file=StringIO(), force_terminal=is_terminal)
    monkeypatch.setattr("rich.get_console", lambda: console)


def loader(num_batches: int) -> DataLoader[Any]:
    return DataLoader(torch.zeros(num_batches, 1), batch_size=1)  # type: ignore[arg-type]


def trainer(*callbacks: Callback, **settings: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[*callbacks, ProgressLogCallback(interval=30)], **settings,
    )  # fmt: skip


def test_training_logs_step_loss_speed_and_remaining_time(lines: list[str]) -> None:
    trainer(max_steps=8).fit(Model(), loader(20))
    assert lines == [
        "Step 3 of 8: train/loss 1, 10 s per step, 0:00:50 left.",
        "Step 6 of 8: train/loss 1, 10 s per step, 0:00:20 left.",
    ]


def test_a_training_without_end_logs_no_remaining_time(lines: list[str]) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.should_stop = trainer.global_step == 4

    trainer(Stop(), max_epochs=-1).fit(Model(), loader(20))
    assert lines == ["Step 3: train/loss 1, 10 s per step."]


def test_validation_in_training_is_logged(lines: list[str]) -> None:
    trainer(max_steps=1, num_sanity_val_steps=0).fit(Model(), loader(1), loader(7))
    assert lines == ["Validation: batch 2 of 7.", "Validation: batch 5 of 7.", "Validation at step 1: val/loss 2.5."]


@pytest.mark.filterwarnings("ignore:You.re resuming from", "ignore:Checkpoint directory .* exists and is not empty")
def test_the_folder_of_the_run_and_another_one_of_its_checkpoints_are_named(lines: list[str], tmp_path: Path) -> None:
    for name, others in (("0", ""), ("1", f", its checkpoints in {tmp_path}/0/checkpoints")):
        checkpoints = LastCheckpointCallback(dirpath=str(tmp_path / "0" / "checkpoints"))
        logger = CSVLogger(tmp_path, name="", version=name)
        callbacks = [checkpoints, ProgressLogCallback()]
        start = tmp_path / "0" / "checkpoints" / "last.ckpt" if others else None
        Trainer(
            accelerator="cpu", logger=logger, max_steps=1 + bool(others), enable_progress_bar=False,
            log_every_n_steps=1, enable_model_summary=False, callbacks=callbacks, num_sanity_val_steps=0,
        ).fit(Model(), loader(4), loader(1), ckpt_path=start)  # fmt: skip
        assert lines[-1] == f"Logs, samples and scores of the run are in {tmp_path}/{name}{others}."
        resumed = (
            f"Resuming {start} after step 1. Logs, samples and scores of the resumed run are in {tmp_path}/1{others}."
        )
        assert [line for line in lines if line.startswith("Resuming")] == ([resumed] if others else [])


def test_a_validation_alone_is_logged_in_lightnings_table_only(lines: list[str]) -> None:
    trainer().validate(Model(), loader(2))
    assert lines == []


@pytest.mark.parametrize("method", ["test", "predict"])
def test_test_and_predict_log_batches(lines: list[str], method: str) -> None:
    getattr(trainer(), method)(Model(), loader(7))
    batches = ["Batch 3 of 7: 10 s per batch, 0:00:40 left.", "Batch 6 of 7: 10 s per batch, 0:00:10 left."]
    assert lines == ["Prediction: 7 batches."] * (method == "predict") + batches


def test_nothing_is_logged_in_a_terminal(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    set_terminal(monkeypatch, True)
    trainer(max_steps=8).fit(Model(), loader(20), loader(2))
    trainer().predict(Model(), loader(7))
    assert lines == []
