import json
from pathlib import Path

import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.cider import CiderCallback
from synth2_lightning.metrics.bleu import bleu
from synth2_lightning.metrics.cider import cider, human_cider
from synth2_lightning.metrics.rouge import rouge
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch
from synth2_lightning.types import ImageTextBatch


def loader(*batches: ImageTextBatch) -> DataLoader[ImageTextBatch]:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def quiet_trainer(folder: Path, callback: CiderCallback) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=CSVLogger(folder, name=""), callbacks=[callback], enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip


def captioner() -> VisionLanguageModule:
    return VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())


def test_scores_the_corpus_once_and_writes_its_files(tmp_path: Path) -> None:
    batches = (tiny_batch(4, seed=0), tiny_batch(3, seed=1), tiny_batch(4, seed=0))  # the last one is padding
    trainer = quiet_trainer(tmp_path, CiderCallback())
    (logged,) = trainer.validate(captioner(), loader(*batches), verbose=False)
    folder = Path(trainer.log_dir or "") / "cider" / "val-step=0"
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [row["key"] for row in rows] == [*batches[0].keys, *batches[1].keys]
    expected = cider({row["key"]: row["caption"] for row in rows}, {row["key"]: row["references"] for row in rows})
    assert logged["val/cider"] == pytest.approx(expected.score)
    hypotheses = {row["key"]: row["caption"] for row in rows}
    texts = {row["key"]: row["references"] for row in rows}
    assert logged["val/rouge_l"] == pytest.approx(rouge(hypotheses, texts).score)
    assert [logged[f"val/bleu_{n}"] for n in range(1, 5)] == pytest.approx(bleu(hypotheses, texts).corpus)
    assert logged["val/length"] == pytest.approx(sum(len(text.split()) for text in hypotheses.values()) / 7)
    assert 0 < logged["val/distinct_1"] < 1

    card = json.loads((folder / "protocol.json").read_text())
    assert card["score"] == pytest.approx(expected.score)
    assert card["other_scores"]["bleu_4"] == pytest.approx(logged["val/bleu_4"])
    assert card["human_score"] == pytest.approx(human_cider({row["key"]: row["references"] for row in rows}).score)
    assert (card["num_images"], card["num_references"], card["num_repeated_keys_dropped"]) == (7, 14, 4)
    assert card["generation"]["max_new_tokens"] == 30
    assert card["decoder"] == "TinyDecoder"
    assert "torch" in card["versions"]


def test_the_test_split_has_its_own_name(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, CiderCallback(folder=str(tmp_path / "scores")))
    (logged,) = trainer.test(captioner(), loader(tiny_batch(4)), verbose=False)
    assert "test/cider" in logged
    protocol = tmp_path / "scores" / "cider" / "test-step=0" / "protocol.json"
    assert json.loads(protocol.read_text())["num_images"] == 4
    trainer.test(captioner(), loader(tiny_batch(3, seed=1)), verbose=False)
    assert json.loads(protocol.read_text())["num_images"] == 3  # without the captions of the test before


class WordlessModule(LightningModule):
    def validation_step(self, batch: ImageTextBatch) -> None:
        return None


def test_a_step_without_captions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"NoneType.*CaptionOutput"):
        quiet_trainer(tmp_path, CiderCallback()).validate(WordlessModule(), loader(tiny_batch()), verbose=False)


def test_a_folder_that_is_not_writable_is_reported(tmp_path: Path) -> None:
    (tmp_path / "cider").write_text("a file where a folder should be")
    trainer = quiet_trainer(tmp_path, CiderCallback(folder=str(tmp_path)))
    with pytest.raises(OSError, match=r"CiderCallback.*--trainer\.default_root_dir"):
        trainer.validate(captioner(), loader(tiny_batch()), verbose=False)
