from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.caption_samples import CaptionSamplesCallback
from synth2_lightning.callbacks.cider import CiderCallback
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch


@pytest.mark.parametrize("stage", ["val", "test"])
def test_output_has_the_step_of_the_checkpoint_that_is_evaluated(stage: str, tmp_path: Path) -> None:
    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=[CiderCallback(), CaptionSamplesCallback()],
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    data = DataLoader([tiny_batch(4)], batch_size=None)  # type: ignore[arg-type,var-annotated]
    trainer.validate(module, data, verbose=False)
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    content = torch.load(tmp_path / "trained.ckpt", weights_only=True)
    torch.save(content | {"global_step": 600}, tmp_path / "trained.ckpt")
    run = trainer.validate if stage == "val" else trainer.test
    run(module, data, ckpt_path=tmp_path / "trained.ckpt", verbose=False, weights_only=True)
    run(module, data, verbose=False)  # without a checkpoint
    names = {path.name for path in (tmp_path / "cider").iterdir()}
    assert names == {"val-step=0", f"{stage}-step=0", f"{stage}-step=600"}
    assert (tmp_path / "samples" / "step=600.png").exists() is (stage == "val")
