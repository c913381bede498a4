import logging

import pytest
import torch

from synth2_lightning.cli.precision import HardwareTrainer, Precision, resolve_precision


def set_cpu(monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("synth2_lightning.io.precision.has_bfloat16_instructions", lambda: has_bfloat16)


@pytest.mark.parametrize(("is_native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_is_bfloat16_where_the_hardware_computes_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_native: bool, expected: str
) -> None:
    set_cpu(monkeypatch, is_native)
    with caplog.at_level(logging.INFO):
        trainer = HardwareTrainer(accelerator="cpu", precision="auto", barebones=True)
    assert trainer.precision == expected
    (message,) = [message for message in caplog.messages if message.startswith("Precision")]
    assert expected in message
    assert ("no bfloat16" in message) is not is_native


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_named_precision_is_kept(monkeypatch: pytest.MonkeyPatch, precision: Precision) -> None:
    set_cpu(monkeypatch)
    assert resolve_precision(precision, "cpu") == precision


def test_bfloat16_on_a_cpu_that_emulates_it_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_cpu(monkeypatch)
    with caplog.at_level(logging.WARNING):
        resolve_precision("bf16-mixed", "auto")
    assert "trainer.precision is bf16-mixed" in caplog.text
    assert "times as long as in float32" in caplog.text


def test_the_accelerator_decides_and_not_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    set_cpu(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert resolve_precision("auto", "cpu") == "32-true"
    assert resolve_precision("auto", "gpu") == "bf16-mixed"
