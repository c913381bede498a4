from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.caption_samples import CaptionSamplesCallback
from synth2_lightning.callbacks.cider import CiderCallback
from synth2_lightning.callbacks.evaluated_step import evaluated_step
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch

BATCHES: Any = DataLoader([tiny_batch(4)] * 3, batch_size=None)  # type: ignore[arg-type]


def make_trainer(folder: Path) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, callbacks=[CiderCallback(), CaptionSamplesCallback()], max_steps=3,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip


@pytest.mark.parametrize("stage", ["val", "test"])
def test_output_has_the_step_of_the_weights(stage: str, tmp_path: Path) -> None:
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())

    def list_scores(**arguments: Any) -> list[str]:
        trainer = make_trainer(tmp_path / "other")
        for each in (trainer, make_trainer(tmp_path / "another")):  # the second has not loaded the weights
            run = each.validate if stage == "val" else each.test
            run(module, BATCHES, verbose=False, **arguments)
            arguments = {}
        return [path.name for path in sorted(tmp_path.glob("*other/cider/*"))]

    assert list_scores() == [f"{stage}-step=0"] * 2
    trainer = make_trainer(tmp_path)
    trainer.fit(module, BATCHES, BATCHES)
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    assert module.trained_steps == 3
    content = torch.load(tmp_path / "trained.ckpt", weights_only=True)
    torch.save(content | {"global_step": 600}, tmp_path / "trained.ckpt")
    assert list_scores() == [f"{stage}-step=0", f"{stage}-step=3"] * 2
    names = list_scores(ckpt_path=tmp_path / "trained.ckpt", weights_only=True)
    assert names == [f"{stage}-step=0", f"{stage}-step=3", f"{stage}-step=600"] * 2
    assert (tmp_path / "other" / "samples" / "step=600.png").exists() is (stage == "val")
    assert VisionLanguageModule.load_from_checkpoint(tmp_path / "trained.ckpt").trained_steps == 600


def test_modules_of_others_have_the_step_of_the_trainer(tmp_path: Path) -> None:
    assert evaluated_step(make_trainer(tmp_path), LightningModule()) == 0


def test_no_checkpoint_leads_the_output_out_of_its_folder(tmp_path: Path) -> None:
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    trainer = make_trainer(tmp_path / "run")
    trainer.validate(module, BATCHES, verbose=False)
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    content = torch.load(tmp_path / "other.ckpt", weights_only=True)
    torch.save(content | {"global_step": "/../../../home"}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"global_step '/\.\./\.\./\.\./home'.*number of steps"):
        trainer.validate(module, BATCHES, ckpt_path=tmp_path / "other.ckpt", verbose=False, weights_only=True)
    assert not (tmp_path / "home").exists()
