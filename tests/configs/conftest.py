"""Complete parsing of run files, and construction of what they describe, without weights and without a run."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from transformers import LlamaConfig, T5Config

from synth2_lightning.cli.lightning_cli import CommandLine
from synth2_lightning.cli.trainer import run_trainer
from synth2_lightning.decoders.language_model import PretrainedLanguageModel
from synth2_lightning.encoders.text import PretrainedTextEncoder


class ParsedError(Exception):
    """Ends a command after its run files are parsed."""


class CommandLineWithoutClasses(CommandLine):
    """Parses run files completely; ``--print_config`` would end before names are checked."""

    def instantiate_classes(self) -> None:
        raise ParsedError


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str]], None]:
    """Parse a command and its run files."""
    monkeypatch.setattr("synth2_lightning.cli.lightning_cli.CommandLine", CommandLineWithoutClasses)
    # DeepSpeed, which an overlay names, need not be installed.
    monkeypatch.setattr("synth2_lightning.cli.lightning_cli.find_spec", lambda name: name)

    def parse(words: Sequence[str]) -> None:
        with pytest.raises(ParsedError):
            run_trainer(words)

    return parse


class CommandLineWithoutRun(CommandLine):
    """Parses run files completely, and constructs model, data, callbacks, loggers, strategy and trainer."""

    def instantiate_trainer(self, **settings: Any) -> Trainer:
        # Strategies are constructed, but most of them need several GPUs in a trainer.
        return super().instantiate_trainer(**settings, strategy="auto", accelerator="cpu", devices=1)

    def fit(self, **_: Any) -> None: ...

    validate = test = predict = fit


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str]], CommandLine]:
    """Construct what a command and its run files describe; pretrained language models have stand-in configurations."""
    monkeypatch.setattr("synth2_lightning.cli.lightning_cli.CommandLine", CommandLineWithoutRun)
    monkeypatch.setattr(PretrainedLanguageModel, "config", LlamaConfig(num_hidden_layers=32))
    monkeypatch.setattr(PretrainedTextEncoder, "config", T5Config())

    def build(words: Sequence[str]) -> CommandLine:
        with torch.device("meta"):  # networks of a billion weights are constructed in no time
            return run_trainer(words)

    return build
