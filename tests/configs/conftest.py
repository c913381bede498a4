"""Fixtures that parse run files completely, and construct their objects without weights and without a run."""

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
    """Raised when the run files of a command are parsed."""


class CommandLineWithoutClasses(CommandLine):
    """Command line that parses run files completely; ``--print_config`` would end before names are checked."""

    def instantiate_classes(self) -> None:
        raise ParsedError


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str]], None]:
    """Return a function that parses a command and its run files."""
    monkeypatch.setattr("synth2_lightning.cli.lightning_cli.CommandLine", CommandLineWithoutClasses)
    # DeepSpeed, which an overlay names, need not be installed.
    monkeypatch.setattr("synth2_lightning.cli.lightning_cli.find_spec", lambda name: name)

    def parse(words: Sequence[str]) -> None:
        with pytest.raises(ParsedError):
            run_trainer(words)

    return parse


class CommandLineWithoutRun(CommandLine):
    """Command line that constructs model, data, callbacks, loggers, strategy and trainer from run files."""

    def instantiate_trainer(self, **settings: Any) -> Trainer:
        # Strategies are constructed, but most of them need several GPUs in a trainer.
        return super().instantiate_trainer(**settings, strategy="auto", accelerator="cpu", devices=1)

    def fit(self, **_: Any) -> None: ...

    validate = test = predict = fit


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str]], CommandLine]:
    """Return a function that constructs the objects of a command; language models have stand-in configurations."""
    monkeypatch.setattr("synth2_lightning.cli.lightning_cli.CommandLine", CommandLineWithoutRun)
    monkeypatch.setattr(PretrainedLanguageModel, "config", LlamaConfig(num_hidden_layers=32))
    monkeypatch.setattr(PretrainedTextEncoder, "config", T5Config())

    def build(words: Sequence[str]) -> CommandLine:
        with torch.device("meta"):  # constructs networks of a billion weights without memory
            return run_trainer(words)

    return build
