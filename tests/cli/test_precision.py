import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelSummary

from synth2_lightning.callbacks.component_summary import ComponentSummaryCallback
from synth2_lightning.cli.precision import HardwareTrainer, Precision, resolve_precision
from synth2_lightning.compat.lightning import attributes_of


@pytest.mark.parametrize(("is_native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_is_bfloat16_where_the_hardware_computes_it(
    set_cpu: Callable[..., None], caplog: pytest.LogCaptureFixture, is_native: bool, expected: str
) -> None:
    set_cpu(has_bfloat16=is_native)
    with caplog.at_level(logging.INFO):
        trainer = HardwareTrainer(accelerator="cpu", precision="auto", barebones=True)
    assert trainer.precision == expected
    (message,) = [message for message in caplog.messages if message.startswith("Precision")]
    assert expected in message
    assert ("no bfloat16" in message) is not is_native


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_named_precision_is_kept(set_cpu: Callable[..., None], precision: Precision) -> None:
    set_cpu(has_bfloat16=False)
    assert resolve_precision(precision, "cpu") == precision


def test_bfloat16_on_a_cpu_that_emulates_it_is_warned_of(
    set_cpu: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    set_cpu(has_bfloat16=False)
    with caplog.at_level(logging.WARNING):
        resolve_precision("bf16-mixed", "auto")
    assert "trainer.precision is bf16-mixed" in caplog.text
    assert "times as long as in float32" in caplog.text


def test_the_accelerator_decides_and_not_the_machine(
    monkeypatch: pytest.MonkeyPatch, set_cpu: Callable[..., None]
) -> None:
    set_cpu(has_bfloat16=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert resolve_precision("auto", "cpu") == "32-true"
    assert resolve_precision("auto", "gpu") == "bf16-mixed"


@pytest.mark.parametrize(("accelerator", "expected"), [("cpu", []), ("gpu", ["high"])])
def test_products_use_tf32_on_gpus(monkeypatch: pytest.MonkeyPatch, accelerator: str, expected: list[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    chosen: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", chosen.append)
    monkeypatch.setattr(Trainer, "__init__", lambda *args, **kwargs: None)
    HardwareTrainer(accelerator=accelerator, precision="32-true")
    assert chosen == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [ComponentSummaryCallback]),
        ({"enable_model_summary": False}, []),
        ({"callbacks": ModelSummary(max_depth=2)}, [ModelSummary]),
    ],
)
def test_components_are_summarized_unless_there_is_another_summary(
    settings: dict[str, Any], expected: list[type[Callback]]
) -> None:
    trainer = HardwareTrainer(
        accelerator="cpu", precision="32-true", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        **settings,
    )  # fmt: skip
    assert [type(callback) for callback in attributes_of(trainer).callbacks] == expected
