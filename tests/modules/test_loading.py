import re
from typing import Any

import pytest
import torch
from torch import nn

from synth2_lightning.interfaces import Loadable
from synth2_lightning.modules.loading import load_components


class Source(Loadable):
    def __init__(self, model: str, gguf_file: str | None = None) -> None: ...


class Part(Loadable, nn.Module):
    def __init__(self, source: Source | None = None, **settings: Any) -> None:
        super().__init__()

    def _load(self) -> None:
        self.weight = nn.Parameter(torch.zeros(1500))


def load(part: Part, is_logged: bool = True) -> None:
    module = nn.Module()
    module.add_module("decoder", part)
    module.add_module("metric", nn.Identity())
    load_components(module, is_logged)
    assert part.weight.numel() == 1500


@pytest.mark.parametrize(
    ("part", "model"),
    [
        (Part(Source("weights://smollm2", "a.gguf")), "weights://smollm2/a.gguf"),
        (Part(model="owner/name"), "owner/name"),
        (Part(Source("owner/name"), scorers=[{"class_path": "a.B", "init_args": {"model": "b"}}]), "owner/name, b"),
    ],
)
def test_pretrained_models_are_named_before_they_are_read_with_size_and_time_after(
    part: Part, model: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    before: list[str] = []

    def note_and_load() -> None:
        before.extend(caplog.messages)
        Loadable.load(part)

    monkeypatch.setattr(part, "load", note_and_load)
    load(part)
    assert before == [f"Loading decoder: {model}."]
    assert re.fullmatch(r"Loaded decoder: 1\.5 K parameters in \d+\.\d s\.", caplog.messages[1])


def test_a_second_stage_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    part = Part(model="owner/name")
    load(part)
    caplog.clear()
    load(part)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("part", "is_logged"),
    [
        (Part(), True),
        (Part(model="package://synth2_lightning/scenes/tokenizer"), True),
        (Part(model="gpt", base_url="http://localhost"), True),
        (Part(model="owner/name"), False),
    ],
)
def test_other_components_are_loaded_without_a_line(
    part: Part, is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    load(part, is_logged)
    assert caplog.messages == []
