import logging
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch

from synth2_lightning.io.precision import WeightType, computes_bfloat16, full_float32, weight_dtype


@pytest.mark.parametrize("expected", [False, True])
def test_cpus_with_bfloat16_instructions_compute_it(set_cpu: Callable[..., None], expected: bool) -> None:
    set_cpu(has_bfloat16=expected)
    assert computes_bfloat16(torch.device("cpu")) is expected
    assert weight_dtype("auto", "T5") is (torch.bfloat16 if expected else torch.float32)


@pytest.mark.parametrize(("major", "expected"), [(7, False), (8, True), (9, True)])
def test_gpus_of_compute_capability_8_compute_bfloat16(
    monkeypatch: pytest.MonkeyPatch, major: int, expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=major))
    assert computes_bfloat16(torch.device("cuda")) is expected
    assert weight_dtype("auto", "T5") is (torch.bfloat16 if expected else torch.float32)


def test_other_devices_do_not() -> None:
    assert not computes_bfloat16(torch.device("meta"))


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_named_types_are_kept(set_cpu: Callable[..., None], name: WeightType) -> None:
    set_cpu(has_bfloat16=False)
    assert weight_dtype(name, "T5") is getattr(torch, name)


def test_a_cpu_that_emulates_bfloat16_is_warned_of_with_the_factor(
    set_cpu: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    set_cpu(has_bfloat16=False)
    with caplog.at_level(logging.WARNING):
        weight_dtype("bfloat16", "T5")
    (record,) = caplog.records
    assert "T5 has dtype=bfloat16" in record.message
    assert "dtype=auto" in record.message
    assert isinstance(record.args, tuple)
    factor = record.args[1]
    assert isinstance(factor, float)
    assert factor > 0
    assert f"{factor:.0f} times as long" in record.message


def test_no_warning_where_bfloat16_is_computed(set_cpu: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    set_cpu(has_bfloat16=True)
    with caplog.at_level(logging.WARNING):
        assert weight_dtype("bfloat16", "T5") is torch.bfloat16
    assert not caplog.records


def read_tf32() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(("device", "expected"), [("cuda", ("highest", False)), ("cpu", ("high", True))])
def test_codebooks_compute_without_tf32_and_autocast(
    monkeypatch: pytest.MonkeyPatch, device: str, expected: tuple[str, bool]
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    try:
        with suppress(ValueError), full_float32(torch.device(device)):
            assert read_tf32() == expected
            assert not torch.is_autocast_enabled(device)
            raise ValueError
        assert read_tf32() == ("high", True)
    finally:
        torch.set_float32_matmul_precision("highest")
