from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger

from synth2_lightning.callbacks.text_samples import TextSamplesCallback
from synth2_lightning.types import ChatMessage, Concept, Prompt

PROMPTS = tuple((ChatMessage("user", word),) for word in ("dog", "cat", "bus"))
OUTPUTS = {
    "concepts": ((Concept("1", "dog"), Concept("2", "ball")), (), (Concept("3", "bus"),)),
    "prompts": PROMPTS,
    "captions": ("A dog\tand a ball.", "A cat.", "A bus."),
}


class Echo(LightningModule):
    def answer(self, prompts: tuple[Prompt, ...]) -> list[str]:
        return [f"An image of {prompt[-1].content}\n." for prompt in prompts]


def run(folder: Path, num_samples: int, num_batches: int, **settings: Any) -> Mock:
    logger = Mock(spec=TensorBoardLogger, log_dir=str(folder))
    trainer = Mock(is_global_zero=True, sanity_checking=False, global_step=7, loggers=[logger], **settings)
    callback = TextSamplesCallback(num_samples)
    callback.on_validation_epoch_start(trainer, Echo())
    for _ in range(num_batches):
        callback.on_validation_batch_end(trainer, Echo(), OUTPUTS)
    callback.on_validation_epoch_end(trainer, Echo())
    return logger


@pytest.mark.parametrize(("num_samples", "num_batches", "num_rows"), [(2, 1, 2), (4, 2, 4), (9, 1, 3)])
def test_the_first_prompts_are_answered(tmp_path: Path, num_samples: int, num_batches: int, num_rows: int) -> None:
    logger = run(tmp_path, num_samples, num_batches)
    lines = (tmp_path / "samples" / "step=7.tsv").read_text().splitlines()
    assert lines[:2] == ["concepts\tsample\theld-out caption", "dog + ball\tAn image of dog .\tA dog and a ball."]
    assert len(lines) == 1 + num_rows
    (name, text, step), _ = logger.experiment.add_text.call_args
    assert (name, step) == ("val/samples", 7)
    assert "An image of dog ." in text


def test_a_sanity_check_writes_nothing(tmp_path: Path) -> None:
    trainer = Mock(default_root_dir=str(tmp_path), is_global_zero=True, sanity_checking=True, global_step=0, loggers=[])
    callback = TextSamplesCallback()
    callback.on_validation_batch_end(trainer, Echo(), OUTPUTS)
    callback.on_validation_epoch_end(trainer, Echo())
    assert not list(tmp_path.iterdir())


def test_what_cannot_answer_is_refused() -> None:
    with pytest.raises(TypeError, match=r"LightningModule.*LanguageModelingModule"):
        TextSamplesCallback().on_validation_batch_end(Mock(), LightningModule(), OUTPUTS)


def test_no_sample_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_samples=0"):
        TextSamplesCallback(0)
