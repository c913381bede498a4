from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.initial_weights import InitialWeightsCallback
from synth2_lightning.callbacks.weight_averaging import WeightAveragingCallback


class Counting(LightningModule):
    """Module whose weight is the number of optimization steps; records the weight at each validation."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.frozen = torch.nn.Parameter(torch.full((1,), 7.0), requires_grad=False)
        self.validated: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return -self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.append(self.weight.item())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=1.0)


def fit(
    folder: Path, callback: WeightAveragingCallback, num_steps: int, ckpt_path: Path | None = None, **settings: Any
) -> tuple[Counting, Trainer]:
    module = Counting()
    trainer = Trainer(
        accelerator="cpu", max_steps=num_steps, val_check_interval=1, check_val_every_n_epoch=None, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, callbacks=[callback],
        default_root_dir=folder, **settings,
    )  # fmt: skip
    loader: DataLoader[Any] = DataLoader(range(8), batch_size=1)  # type: ignore[arg-type]
    trainer.fit(module, loader, DataLoader([0]), ckpt_path=ckpt_path, weights_only=True)  # type: ignore[arg-type]
    return module, trainer


def test_the_average_is_validated_and_kept_at_the_end(tmp_path: Path) -> None:
    module, _ = fit(tmp_path, WeightAveragingCallback(fraction=0.5), 4, num_sanity_val_steps=1)
    # The weights were 1, 2, 3, 4; their mean age is half of the number of steps.
    assert module.validated == pytest.approx([0.0, 1.0, 1.5, 2.0, 2.5])
    assert module.weight.item() == module.validated[-1]
    assert module.frozen.item() == 7.0


def test_a_checkpoint_saved_after_the_run_has_the_weights_beside_the_average(tmp_path: Path) -> None:
    module, trainer = fit(tmp_path, WeightAveragingCallback(fraction=0.5), 4, num_sanity_val_steps=0)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    saved = torch.load(tmp_path / "end.ckpt", weights_only=True)
    assert saved["current_model_state"]["weight"].item() == 4.0
    assert saved["state_dict"]["weight"].item() == module.weight.item() == pytest.approx(2.5)


def test_batches_without_an_optimization_step_do_not_update_the_average(tmp_path: Path) -> None:
    average = WeightAveragingCallback(fraction=0.5)
    module, _ = fit(tmp_path, average, 3, num_sanity_val_steps=0, accumulate_grad_batches=2)
    assert module.weight.item() == pytest.approx((1 + 2 + 3) / 3)


def test_an_aborted_validation_gives_the_weights_back() -> None:
    average, module = WeightAveragingCallback(fraction=0.5), Counting()
    trainer = Mock(spec=Trainer, global_step=0, strategy=Mock(), callbacks=[average])
    average.setup(trainer, module, "fit")
    average.on_train_start(trainer, module)
    with torch.no_grad():
        module.weight.fill_(4.0)
    average.on_validation_epoch_start(trainer, module)
    assert module.weight.item() == 0.0
    average.on_exception(trainer, module, SystemExit())
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    average.on_save_checkpoint(trainer, module, checkpoint)
    assert (checkpoint["state_dict"]["weight"].item(), checkpoint["current_model_state"]["weight"].item()) == (0.0, 4.0)
    average.on_exception(trainer, module, SystemExit())
    assert module.weight.item() == 4.0


@pytest.mark.parametrize("num_steps", [500, 50_000])
@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.25])
def test_the_mean_age_is_a_fraction_of_any_number_of_steps(fraction: float, num_steps: int) -> None:
    average, age = WeightAveragingCallback(fraction), 0.0
    for step in range(1, num_steps + 1):
        age = average.decay(step) * (age + 1)  # the new weights have an age of 0
    assert age / num_steps == pytest.approx(fraction, abs=1 / num_steps)


def test_the_default_has_a_width_that_edm2_uses() -> None:
    exponent = 1 / WeightAveragingCallback().fraction - 1  # gamma + 1 of equations 123 and 127
    assert exponent**0.5 / (exponent + 1) / (exponent + 2) ** 0.5 == pytest.approx(0.09, abs=0.001)


class Stopping(WeightAveragingCallback):
    """Saves a checkpoint after the third step."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        super().on_train_batch_end(trainer, *args)
        if trainer.global_step == 3:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "third.ckpt")


@pytest.mark.filterwarnings("ignore:You.re resuming from a checkpoint that ended before the epoch")
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, _ = fit(tmp_path, Stopping(fraction=0.5), 6, num_sanity_val_steps=0)
    saved = torch.load(tmp_path / "third.ckpt", weights_only=True)
    assert float(saved["state_dict"]["weight"]) == pytest.approx(2.0)
    assert saved["state_dict"]["frozen"] == 7.0
    assert {name: float(weight) for name, weight in saved["current_model_state"].items()} == {"weight": 3.0}

    average = WeightAveragingCallback(fraction=0.5)
    resumed, _ = fit(tmp_path, average, 6, tmp_path / "third.ckpt", num_sanity_val_steps=0)
    assert resumed.weight.item() == whole.weight.item()
    assert resumed.validated == whole.validated[3:]


def test_a_weight_with_two_names_is_averaged_under_both(tmp_path: Path) -> None:
    class Tied(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.same = self.weight

    module, callback = Tied(), WeightAveragingCallback(fraction=0.5)
    trainer = Trainer(logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    callback.on_train_start(trainer, module)
    module.weight.data.fill_(3.0)
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    callback.on_save_checkpoint(trainer, module, checkpoint)
    assert {name: float(weight) for name, weight in checkpoint["state_dict"].items()} == {
        "weight": 0.0, "same": 0.0, "frozen": 7.0,
    }  # fmt: skip


@pytest.mark.parametrize("fraction", [0.0, -0.1, 0.6, float("nan")])
def test_fractions_out_of_range_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=rf"fraction={fraction}.*0\.5"):
        WeightAveragingCallback(fraction)


def test_fsdp1_is_refused_here_and_for_initial_weights() -> None:
    trainer = Mock(spec=Trainer, strategy=FSDPStrategy(), ckpt_path=None)
    with pytest.raises(ValueError, match=r"AveragingCallback.*FSDP"):
        WeightAveragingCallback().setup(trainer, LightningModule(), "fit")
    with pytest.raises(ValueError, match=r"InitialWeightsCallback.*DDP"):
        InitialWeightsCallback("runs/version_0").on_fit_start(trainer, LightningModule())


def test_a_second_average_is_refused(tmp_path: Path) -> None:
    callbacks = [WeightAveragingCallback(0.1), WeightAveragingCallback(0.2)]
    trainer = Trainer(
        accelerator="cpu", max_steps=1, logger=False, default_root_dir=tmp_path, callbacks=[*callbacks]
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"2 WeightAveragingCallbacks.*\[0\.1, 0\.2\]"):
        trainer.fit(Counting(), DataLoader([0]), DataLoader([0]))  # type: ignore[arg-type]
