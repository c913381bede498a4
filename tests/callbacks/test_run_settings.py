import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.run_settings import RunSettingsCallback, collect_settings
from synth2_lightning.callbacks.settings_changes import RECORD, list_changes, list_network_changes

CONFIG: dict[str, Any] = {
    "seed_everything": 7,
    "model": {
        "class_path": "synth2_lightning.modules.captioning.VisionLanguageModule",
        "init_args": {
            "decoder": {"class_path": "synth2_lightning.decoders.prefix.PrefixDecoder", "init_args": {"prompt": "A"}},
            "generation": {"num_beams": 1},
            "export_to": None,
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01, "betas": [0.9, 0.999]}},
            "lr_scheduler": {"class_path": "WarmupCosineSchedule", "init_args": {"warmup_steps": 5}},
        },
    },
    "data": {
        "class_path": "synth2_lightning.datamodules.mixed.MixedDataModule",
        "init_args": {
            "batch_size": 4,
            "num_workers": 0,
            "seed": 0,
            "real": {
                "class_path": "Real",
                "init_args": {"train": {"limit": 5}, "val": {"limit": 4}, "val_batch_size": 2},
            },
        },
    },
    "trainer": {
        "max_steps": 20,
        "accumulate_grad_batches": 1,
        "gradient_clip_val": 1.0,
        "limit_train_batches": None,
        "val_check_interval": 4,
        "logger": True,
        "callbacks": [
            {"class_path": "lightning.pytorch.callbacks.RichProgressBar"},
            {
                "class_path": "synth2_lightning.callbacks.weight_averaging.WeightAveragingCallback",
                "init_args": {"fraction": 0.1},
            },
        ],
    },
}


def settings(path: str = "", value: Any = None, **trainer: Any) -> dict[str, Any]:
    """Settings of a run, with one value replaced."""
    config = copy.deepcopy(CONFIG)
    if path:
        *parents, name = path.split(".")
        node = config
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node[parent]
        node[name] = value
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, **trainer}
    collected = collect_settings(config, Trainer(**options))
    return dict(json.loads(json.dumps(collected)))  # plain values only


BREAKING = {
    "seed": ("seed_everything", 8, "seed_everything: 7 -> 8"),
    "learning rate": ("model.init_args.optimizer.init_args.lr", 0.5, "lr: 0.01 -> 0.5"),
    "an item of a list": ("model.init_args.optimizer.init_args.betas", [0.9, 0.99], "betas[1]: 0.999 -> 0.99"),
    "a shorter list": ("model.init_args.optimizer.init_args.betas", [0.9], "betas: a list of 2 -> a list of 1"),
    "optimizer": ("model.init_args.optimizer.class_path", "torch.optim.SGD", 'AdamW" -> "torch.optim.SGD"'),
    "schedule": ("model.init_args.lr_scheduler", None, 'lr_scheduler: "WarmupCosineSchedule" -> none'),
    "warm-up": ("model.init_args.lr_scheduler.init_args.warmup_steps", 9, "warmup_steps: 5 -> 9"),
    "prompt": ("model.init_args.decoder.init_args.prompt", "B", 'prompt: "A" -> "B"'),
    "batch size": ("data.init_args.batch_size", 8, "data.init_args.batch_size: 4 -> 8"),
    "order of the data": ("data.init_args.seed", 1, "data.init_args.seed: 0 -> 1"),
    "limit of the data": ("data.init_args.real.init_args.train.limit", 3, "train.limit: 5 -> 3"),
    "a new argument": ("data.init_args.keep_fraction", 0.5, "data.init_args.keep_fraction: none -> 0.5"),
    "accumulation": ("trainer.accumulate_grad_batches", 2, "trainer.accumulate_grad_batches: 1 -> 2"),
    "clipping": ("trainer.gradient_clip_val", None, "trainer.gradient_clip_val: 1.0 -> none"),
    "length of an epoch": ("trainer.limit_train_batches", 3, "trainer.limit_train_batches: none -> 3"),
    "averaging": (
        "trainer.callbacks.1.init_args",
        {"fraction": 0.2},
        "callbacks.WeightAveragingCallback.fraction: 0.1 -> 0.2",
    ),
    "no averaging": ("trainer.callbacks", [], "callbacks.WeightAveragingCallback: 1 values -> none"),
}


@pytest.mark.parametrize("kind", BREAKING)
def test_a_setting_that_breaks_an_exact_resume_is_listed(kind: str) -> None:
    path, value, line = BREAKING[kind]
    (change,) = list_changes({RECORD: settings()}, settings(path, value))
    assert line in change


def test_precision_is_that_of_the_trainer() -> None:
    (change,) = list_changes({RECORD: settings()}, settings(precision="bf16-mixed"))
    assert change == 'trainer.precision: "32-true" -> "bf16-mixed"'
    assert list_changes({RECORD: settings()}, settings(precision=32)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("", None),
        ("trainer.max_steps", 40),
        ("trainer.val_check_interval", 2),
        ("trainer.logger", False),
        ("trainer.callbacks.0.class_path", "lightning.pytorch.callbacks.TQDMProgressBar"),
        ("trainer.gradient_clip_val", 1),
        ("data.init_args.num_workers", 8),
        ("data.init_args.real.init_args.val", None),
        ("data.init_args.real.init_args.val_batch_size", 64),
        ("model.init_args.generation.num_beams", 4),
        ("model.init_args.export_to", "runs/codebook"),
    ],
)
def test_settings_that_do_not_affect_training_steps_may_change(path: str, value: Any) -> None:
    assert list_changes({RECORD: settings()}, settings(path, value)) == []


def test_only_network_settings_are_compared_without_training() -> None:
    saved = {RECORD: settings()}
    for path, value in (("seed_everything", 1), ("model.init_args.optimizer.init_args.lr", 1), ("data", {})):
        assert list_network_changes(saved, settings(path, value)) == []
    (change,) = list_network_changes(saved, settings("model.init_args.decoder.init_args.prompt", "B"))
    assert change == 'model.init_args.decoder.init_args.prompt: "A" -> "B"'


def test_length_and_number_of_processes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    present = settings("trainer.max_steps", 40, devices=2, strategy="ddp")
    with caplog.at_level("INFO"):
        RunSettingsCallback(present).check("step=8.ckpt", {RECORD: settings()})
    assert "trainer.max_steps: 20 -> 40" in caplog.text
    assert "trainer.devices * num_nodes: 1 -> 2" in caplog.text
    assert 'trainer.strategy: "SingleDeviceStrategy" -> "DDPStrategy"' in caplog.text


def test_changes_are_listed_line_by_line_with_advice() -> None:
    saved = settings("data.init_args.batch_size", 8)
    saved["exact"]["seed_everything"] = 99
    with pytest.raises(ValueError, match=r"step=8\.ckpt") as error:
        RunSettingsCallback(settings()).check("step=8.ckpt", {RECORD: saved})
    lines = [line.strip() for line in str(error.value).splitlines()]
    assert lines[1:3] == ["seed_everything: 99 -> 7", "data.init_args.batch_size: 8 -> 4"]
    assert all(way in lines[3] for way in ("--resume_with_changes=true", "--ckpt_path PATH", "without --ckpt_path"))


def test_a_checkpoint_without_settings_is_reported() -> None:
    with pytest.warns(UserWarning, match=r"own\.ckpt.*settings"):
        RunSettingsCallback(settings()).check("own.ckpt", {"global_step": 1})


class Line(LightningModule):
    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.rates: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.rates.append(round(self.trainer.optimizers[0].param_groups[0]["lr"], 6))
        return self.weight.sum()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD([self.weight], lr=self.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Data(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        return index


def train(folder: Path, lr: float, max_steps: int, allows_changes: bool = False, **start: Any) -> Line:
    record = settings("model.init_args.optimizer.init_args.lr", lr)
    module = Line(lr)
    trainer = Trainer(
        accelerator="cpu", max_steps=max_steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=[RunSettingsCallback(record, allows_changes)],
    )  # fmt: skip
    trainer.fit(module, DataLoader(Data()), **start)
    trainer.save_checkpoint(folder / f"step={trainer.global_step}.ckpt")
    return module


@pytest.mark.filterwarnings("ignore:You.re resuming from a checkpoint that ended before the epoch")
@pytest.mark.filterwarnings("ignore:The .train_dataloader. does not have many workers")
def test_an_allowed_learning_rate_takes_effect_and_a_finished_run_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert train(tmp_path, 1.0, 4).rates == [1.0, 0.5, round(1 / 3, 6), 0.25]
    start: dict[str, Any] = {"ckpt_path": tmp_path / "step=4.ckpt", "weights_only": True}
    with pytest.raises(ValueError, match=r"lr: 1\.0 -> 0\.1"):
        train(tmp_path, 0.1, 6, **start)
    assert train(tmp_path, 1.0, 6, **start).rates == [0.2, round(1 / 6, 6)]
    with pytest.warns(UserWarning, match=r"lr: 1\.0 -> 0\.1"):
        assert train(tmp_path, 0.1, 6, allows_changes=True, **start).rates == [0.02, round(0.1 / 6, 6)]
    with caplog.at_level("INFO"):
        assert train(tmp_path, 1.0, 4, **start).rates == []
    assert re.search(r"finished.*\b4 steps\b.*max_steps=4", caplog.text)


def test_another_optimizer_does_not_take_the_state() -> None:
    present = RunSettingsCallback(settings("model.init_args.optimizer.class_path", "torch.optim.SGD"), True)
    with pytest.raises(ValueError, match=r"AdamW.*SGD.*InitialWeightsCallback"):
        present.check("step=4.ckpt", {RECORD: settings()})
