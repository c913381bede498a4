from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer

from synth2_lightning.callbacks import throughput
from synth2_lightning.callbacks.throughput import DataWaitCallback
from synth2_lightning.testing import tiny_batch


class Clock:
    def __init__(self, ticks: list[float]) -> None:
        self.ticks = iter(ticks)

    def __call__(self) -> float:
        return next(self.ticks)


class LoggingModule(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.logged: dict[str, float] = {}

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        self.logged[name] = value


def quiet_trainer(folder: Path) -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=folder)


def test_reports_samples_per_second_over_all_ranks_and_the_fraction_of_waiting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module, trainer = LoggingModule(), quiet_trainer(tmp_path)
    monkeypatch.setattr(Trainer, "world_size", 2)
    # step 1: 0 to 1; waits to 2; step 2: 2 to 4. Three seconds of work, one of waiting.
    monkeypatch.setattr(throughput, "perf_counter", Clock([0.0, 1.0, 2.0, 4.0]))
    callback = DataWaitCallback(window=2)
    callback.on_train_epoch_start(trainer, module)
    for step in range(2):
        callback.on_train_batch_start(trainer, module, tiny_batch(4), step)
        assert not module.logged
        callback.on_train_batch_end(trainer, module, None, tiny_batch(4), step)
    assert module.logged == {"speed/samples_per_s": 8 * 2 / 4, "speed/data_wait": 0.25}


def test_validation_is_not_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module, trainer = LoggingModule(), quiet_trainer(tmp_path)
    monkeypatch.setattr(throughput, "perf_counter", Clock([0.0, 1.0, 100.0, 101.0]))
    callback = DataWaitCallback(window=2)
    callback.on_train_epoch_start(trainer, module)
    for step in range(2):
        callback.on_train_batch_start(trainer, module, tiny_batch(1), step)
        callback.on_train_batch_end(trainer, module, None, tiny_batch(1), step)
        callback.on_validation_end(trainer, module)
    assert module.logged == {"speed/samples_per_s": 1.0, "speed/data_wait": 0.0}


def test_the_time_of_a_checkpoint_is_not_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module, trainer = LoggingModule(), quiet_trainer(tmp_path)
    # step 1: 0 to 1; a checkpoint until 9; step 2: 9 to 11
    monkeypatch.setattr(throughput, "perf_counter", Clock([0.0, 1.0, 9.0, 11.0]))
    callback = DataWaitCallback(window=2)
    for _ in range(2):
        callback.on_train_batch_start(trainer, module, tiny_batch(), 0)
        callback.on_train_batch_end(trainer, module, None, tiny_batch(), 0)
        callback.on_save_checkpoint(trainer, module, {})
    assert module.logged["speed/data_wait"] == 0


def test_refuses_an_empty_window() -> None:
    with pytest.raises(ValueError, match=r"DataWaitCallback\.window.*\b0\b"):
        DataWaitCallback(window=0)
