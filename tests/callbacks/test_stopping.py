import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.last_checkpoint import LastCheckpointCallback
from synth2_lightning.callbacks.stopping import SigtermCallback


class Counting(LightningModule):
    """Module whose weight is the number of optimization steps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.num_predicted = 0

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return -self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    def predict_step(self, batch: Any, batch_idx: int) -> int:
        self.num_predicted += 1
        return self.num_predicted

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=1.0)


class At(Callback):
    """Calls a function in the named hook when a step is reached."""

    def __init__(self, hook: str, step: int, do: Callable[[], None]) -> None:
        def run(trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == step:
                do()

        setattr(self, hook, run)


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def ctrl_c() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise RuntimeError("half a step")


def loader(length: int = 10) -> "DataLoader[Any]":
    return DataLoader(range(length), batch_size=1)  # type: ignore[arg-type]


def make(folder: Path, *callbacks: Callback, last: LastCheckpointCallback | None = None, **settings: Any) -> Trainer:
    defaults: dict[str, Any] = {"max_epochs": 2, "val_check_interval": 4}
    return Trainer(
        accelerator="cpu", logger=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[*callbacks, SigtermCallback(), last or LastCheckpointCallback(str(folder))], **defaults | settings,
    )  # fmt: skip


UNVALIDATED: dict[str, Any] = {"limit_val_batches": 0, "val_check_interval": 1.0, "check_val_every_n_epoch": 99}


def saved(folder: Path) -> dict[str, float]:
    return {
        path.name: float(torch.load(path, weights_only=True)["state_dict"]["weight"])
        for path in sorted(folder.glob("step=*.ckpt"))
    }


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_before_optimizer_step"])
def test_sigterm_ends_a_fit_after_the_step_and_saves_it(hook: str, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SIGTERMException) as stop:
        make(tmp_path, At(hook, 5, sigterm)).fit(Counting(), loader(), loader(1))
    assert stop.value.code == 143
    assert saved(tmp_path) == {"step=4.ckpt": 4.0, "step=6.ckpt": 6.0}
    assert (tmp_path / "last.ckpt").resolve().name == "step=6.ckpt"
    assert signal.getsignal(signal.SIGTERM) == handler


def test_sigterm_waits_for_the_end_of_gradient_accumulation(tmp_path: Path) -> None:
    # The signal comes in the first of the two batches of the second step.
    trainer = make(tmp_path, At("on_train_batch_start", 1, sigterm), accumulate_grad_batches=2)
    with pytest.raises(SIGTERMException):
        trainer.fit(Counting(), loader(), loader(1))
    assert trainer.fit_loop.total_batch_idx == 3


@pytest.mark.parametrize("num_batches", [1, 3])
def test_a_validation_between_the_batches_of_a_step_saves_nothing(num_batches: int, tmp_path: Path) -> None:
    # After 4 and 8 batches, of which three make a step.
    stop = At("on_validation_batch_start", 2, sigterm)
    with pytest.raises(SIGTERMException):
        make(tmp_path, stop, accumulate_grad_batches=3).fit(Counting(), loader(), loader(num_batches))
    assert saved(tmp_path) == {}


@pytest.mark.filterwarnings("ignore:You.re resuming from a checkpoint that ended before the epoch")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(("step", "next_step", "interval"), [(4, 8, 4), (8, 14, 4), (10, 20, 1.0)])
def test_a_validation_is_aborted_and_its_step_saved_and_the_resumed_run_repeats_it(
    step: int, next_step: int, interval: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Validated(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.batches: list[tuple[int, int]] = []

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.batches.append((self.trainer.global_step, batch_idx))

    caplog.set_level("INFO")
    stopped, resumed = Validated(), Validated()
    stop = At("on_validation_batch_start", step, sigterm)
    with pytest.raises(SIGTERMException):
        make(tmp_path, stop, val_check_interval=interval).fit(stopped, loader(), loader(3))
    assert stopped.batches[-1] == (step, 0)
    assert saved(tmp_path)[f"step={step}.ckpt"] == float(step)
    assert "SIGTERM received in a validation" in caplog.text
    path = tmp_path / f"step={step}.ckpt"
    trainer = make(tmp_path, val_check_interval=interval)
    trainer.fit(resumed, loader(), loader(3), ckpt_path=path, weights_only=True)
    assert resumed.batches[:4] == [(step, 0), (step, 1), (step, 2), (next_step, 0)]
    assert resumed.weight.item() == 20.0
    progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
    assert progress.ready == progress.completed == 3 * (1 if interval == 1.0 else 2), "of the last epoch"


def test_a_validation_with_the_average_of_lightning_saves_nothing(tmp_path: Path) -> None:
    # During validation, the average replaces the trained weights.
    stop = At("on_validation_batch_start", 4, sigterm)
    with pytest.raises(SIGTERMException):
        make(tmp_path, stop, EMAWeightAveraging()).fit(Counting(), loader(), loader(3))
    assert saved(tmp_path) == {}


def test_a_validation_on_its_own_saves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SIGTERMException):
        make(tmp_path, At("on_validation_batch_start", 0, sigterm)).validate(Counting(), loader(3))
    assert saved(tmp_path) == {}


@pytest.mark.parametrize(
    ("environment", "local_rank", "code"),
    [(LightningEnvironment(), 1, 0), (LightningEnvironment(), 0, 143), (TorchElasticEnvironment(), 1, 143)],
)
def test_only_children_of_lightning_exit_with_0(environment: Any, local_rank: int, code: int) -> None:
    trainer = Mock(spec=Trainer, local_rank=local_rank, strategy=Mock(cluster_environment=environment))
    exception = SIGTERMException()
    SigtermCallback().on_exception(trainer, Counting(), exception)
    assert exception.code == code


def test_steps_are_saved_between_validations_and_a_validated_step_after_its_validation(tmp_path: Path) -> None:
    seen: list[tuple[int, list[str]]] = []

    class Look(Callback):
        def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            seen.append((trainer.global_step, sorted(saved(tmp_path))))

    callback = LastCheckpointCallback(str(tmp_path), every_n_train_steps=2, num_kept=9)
    make(tmp_path, Look(), last=callback).fit(Counting(), loader(), loader(1))
    # The tenth and the twentieth end an epoch; 4, 8, 14 and 18 are validated.
    steps = [2, 4, 6, 8, 11, 13, 14, 16, 18]
    assert saved(tmp_path) == {f"step={step}.ckpt": float(step) for step in steps}
    assert seen == [(step, sorted(f"step={each}.ckpt" for each in steps if each < step)) for step in (4, 8, 14, 18)]


@pytest.mark.parametrize(
    ("interval", "length", "expected"),
    [
        (5, 5, [6, 11, 16]),  # every due step would end an epoch
        (3, 9, [3, 6, 10, 13, 16, 19]),
        (7, 20, [7, 14]),
        (1, 2, [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]),
        (None, 5, []),
        (100, 5, []),
    ],
)
def test_a_due_save_at_the_end_of_an_epoch_follows_at_the_next_step(
    interval: int | None, length: int, expected: list[int], tmp_path: Path
) -> None:
    callback = LastCheckpointCallback(str(tmp_path), every_n_train_steps=interval, num_kept=20)
    make(tmp_path, last=callback, max_epochs=-1, max_steps=20, **UNVALIDATED).fit(Counting(), loader(length), loader(1))
    assert saved(tmp_path) == {f"step={step}.ckpt": float(step) for step in expected}


def test_complete_steps_are_counted_under_gradient_accumulation(tmp_path: Path) -> None:
    callback = LastCheckpointCallback(str(tmp_path), every_n_train_steps=2, num_kept=20)
    trainer = make(tmp_path, last=callback, accumulate_grad_batches=3, **UNVALIDATED)
    trainer.fit(Counting(), loader(20), loader(1))
    # An epoch has 7 steps; the last one has two batches.
    assert sorted(saved(tmp_path)) == sorted(f"step={step}.ckpt" for step in (2, 4, 6, 8, 10, 12))


@pytest.mark.filterwarnings("ignore:You.re resuming from a checkpoint that ended before the epoch")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resumed_run_saves_the_steps_that_it_would_have_saved(tmp_path: Path) -> None:
    steps: dict[str, list[str]] = {}
    for name in ("whole", "stopped"):
        folder = tmp_path / name
        callbacks = [At("on_train_batch_start", 5, sigterm)] if name == "stopped" else []
        if callbacks:
            last = LastCheckpointCallback(str(folder), every_n_train_steps=4)
            with pytest.raises(SIGTERMException):
                make(folder, *callbacks, last=last, **UNVALIDATED).fit(Counting(), loader(), loader(1))
            assert list(saved(folder)) == ["step=4.ckpt", "step=6.ckpt"]
        last = LastCheckpointCallback(str(folder), every_n_train_steps=4)
        start: dict[str, Any] = {"ckpt_path": folder / "step=6.ckpt", "weights_only": True} if callbacks else {}
        make(folder, last=last, **UNVALIDATED).fit(Counting(), loader(), loader(1), **start)
        steps[name] = list(saved(folder))
    assert steps["stopped"] == steps["whole"] == ["step=12.ckpt", "step=16.ckpt"]


def test_a_stop_at_the_end_of_an_epoch_waits_for_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(SIGTERMException):
        make(tmp_path, At("on_train_batch_start", 9, sigterm)).fit(Counting(), loader(), loader(1))
    assert saved(tmp_path) == {"step=11.ckpt": 11.0, "step=4.ckpt": 4.0, "step=8.ckpt": 8.0}


@pytest.mark.parametrize(("do", "error"), [(ctrl_c, SystemExit), (fail, RuntimeError)])
def test_errors_that_may_interrupt_a_step_save_nothing(
    do: Callable[[], None], error: type[BaseException], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(error):
        make(tmp_path, At("on_before_optimizer_step", 5, do)).fit(Counting(), loader(), loader(1))
    assert saved(tmp_path) == {"step=4.ckpt": 4.0}
    assert ("The last checkpoint is of step 4; --ckpt_path last" in caplog.text) is (do is ctrl_c)


@pytest.mark.filterwarnings("ignore:You.re resuming from a checkpoint that ended before the epoch")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_checkpoint_of_the_resume_is_deleted_when_there_are_enough_others(tmp_path: Path) -> None:
    with pytest.raises(SIGTERMException):
        make(tmp_path, At("on_train_batch_start", 5, sigterm)).fit(Counting(), loader(), loader(1))
    make(tmp_path).fit(Counting(), loader(), loader(1), ckpt_path=tmp_path / "step=6.ckpt", weights_only=True)
    assert list(saved(tmp_path)) == ["step=14.ckpt", "step=18.ckpt"]


def test_sigterm_ends_a_prediction_after_the_batch(tmp_path: Path) -> None:
    module = Counting()

    class AtBatch(Callback):
        def on_predict_batch_start(  # type: ignore[override]
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            if batch_idx == 3:
                sigterm()

    with pytest.raises(SIGTERMException):
        make(tmp_path, AtBatch()).predict(module, loader())
    assert module.num_predicted == 4


def test_the_signal_is_handled_while_data_is_prepared(tmp_path: Path) -> None:
    class Early(Counting):
        def train_dataloader(self) -> "DataLoader[Any]":
            sigterm()
            return loader()

    trainer = make(tmp_path)
    callback = next(callback for callback in trainer.callbacks if isinstance(callback, SigtermCallback))  # type: ignore[attr-defined]
    with pytest.raises(SIGTERMException):
        trainer.fit(Early(), val_dataloaders=loader(1))
    assert callback.is_requested  # Lightning's own handler may wait for other ranks forever
    assert saved(tmp_path) == {"step=1.ckpt": 1.0}


def test_a_second_run_is_not_ended_by_the_signal_of_the_first(tmp_path: Path) -> None:
    stop = At("on_train_batch_start", 5, sigterm)
    trainer = make(tmp_path, stop)
    with pytest.raises(SIGTERMException):
        trainer.fit(Counting(), loader(), loader(1))
    module = Counting()
    trainer.predict(module, loader())
    assert module.num_predicted == 10
