import json
import runpy
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.vqa import VQAAccuracyCallback
from synth2_lightning.modules.question_answering import QuestionAnsweringModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch
from synth2_lightning.types import CaptionOutput, ImageTextBatch, TokenLoss


class Answering(QuestionAnsweringModule):
    """Module that answers every question with "yes"."""

    def compute_loss(self, visual: Tensor, batch: ImageTextBatch) -> TokenLoss:
        return TokenLoss(torch.ones(len(batch)), torch.ones(len(batch), dtype=torch.long))

    def generate(self, visual: Tensor, prompts: Sequence[str] | None = None) -> list[str]:
        return ["yes"] * len(visual)


def questions(seed: int, asked: str, *answers: str) -> ImageTextBatch:
    batch = tiny_batch(len(answers), seed=seed)
    references = tuple((answer,) * 10 for answer in answers)
    return replace(batch, captions=answers, references=references, prompts=(asked,) * len(answers))


def run(folder: Path, *batches: ImageTextBatch, callback: VQAAccuracyCallback | None = None) -> tuple[float, Path]:
    trainer = Trainer(
        accelerator="cpu", logger=CSVLogger(folder, name=""), callbacks=[callback or VQAAccuracyCallback()],
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    module = Answering(TinyImageTokenizer(), TinyResampler(), TinyDecoder(), question_prompt="{question}")
    loader: DataLoader[ImageTextBatch] = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    (logged,) = trainer.validate(module, loader, verbose=False)
    return logged["val/vqa_accuracy"], Path(trainer.log_dir or "") / "vqa_accuracy" / "val-step=0"


def test_accuracy_is_reported_by_type_of_question_with_the_blind_score(tmp_path: Path) -> None:
    stars = questions(0, "is there a star?", "yes", "no", "no")
    counts = questions(1, "How many stars are there?", "2")
    accuracy, folder = run(tmp_path, stars, counts, stars)  # the last one is padding
    assert accuracy == pytest.approx(1 / 4)

    card = json.loads((folder / "protocol.json").read_text())
    assert (card["metric"], card["num_images"], card["num_repeated_keys_dropped"]) == ("VQA accuracy", 4, 3)
    assert card["score"] == pytest.approx(1 / 4)
    assert card["blind_score"] == pytest.approx(3 / 4)
    assert card["prompt"] == "{question}"
    assert list(card["by_first_words"]) == ["is there", "how many"]
    assert card["by_first_words"]["is there"] == {
        "num_questions": 3,
        "score": pytest.approx(1 / 3),
        "blind_score": pytest.approx(2 / 3),
    }
    rows = {row["key"]: row for row in map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())}
    assert rows[stars.keys[0]] == {
        "key": stars.keys[0],
        "question": "is there a star?",
        "answer": "yes",
        "references": ["yes"] * 10,
        "vqa_accuracy": 1.0,
    }
    assert rows[counts.keys[0]]["vqa_accuracy"] == 0.0


def test_questions_are_reset_between_epochs(tmp_path: Path) -> None:
    callback = VQAAccuracyCallback(folder=str(tmp_path))
    run(tmp_path, questions(0, "is it red?", "yes", "yes"), callback=callback)
    accuracy, _ = run(tmp_path, questions(0, "is it blue?", "no", "no"), callback=callback)
    assert accuracy == 0.0
    rows = (tmp_path / "vqa_accuracy" / "val-step=0" / "predictions.jsonl").read_text()
    assert "is it red?" not in rows


def test_answers_to_no_question_are_refused() -> None:
    batch = tiny_batch()
    output = CaptionOutput(keys=batch.keys, captions=batch.captions, references=())
    with pytest.raises(ValueError, match=r"2 answers.*0 questions"):
        VQAAccuracyCallback().update(output, batch)


@pytest.mark.slow  # interpreters that each import torch and torchmetrics
@pytest.mark.parametrize("size", [1, 2])
def test_every_rank_gets_the_questions_of_all_ranks(size: int, tmp_path: Path) -> None:
    script = Path(__file__).parent / "vqa_rank.py"
    alone = VQAAccuracyCallback()
    for number in range(5):
        runpy.run_path(str(script))["take"](alone, number)
    expected = alone.score(*alone._metric.corpus())
    commands = [[sys.executable, script, str(rank), str(size), tmp_path / "store"] for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        outputs = [json.loads(output) for output in pool.map(subprocess.check_output, commands)]
    assert expected.value == pytest.approx(3 / 5)
    assert outputs == [json.loads(json.dumps([expected.value, expected.card, expected.rows]))] * size
