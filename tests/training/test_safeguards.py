import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.checkpoint_io import CheckedCheckpointIO
from synth2_lightning.callbacks.last_checkpoint import LastCheckpointCallback
from synth2_lightning.callbacks.run_lock import RunLockCallback
from synth2_lightning.callbacks.stopping import SigtermCallback
from synth2_lightning.compat.lightning import attributes_of
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.modules.scoring import ScoringModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyPairScorer, TinyResampler, tiny_batch
from synth2_lightning.types import ImageTextBatch, Pixels, TokenizedImages

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


def tiny_tokens(seed: int) -> TokenizedImages:
    batch = tiny_batch(2, seed=seed)
    assert isinstance(batch.image, Pixels)
    tokens = TinyImageTokenizer().tokenize(batch.image)
    return TokenizedImages(batch.samples, (("a field",),) * 2, tokens, codebook_size=16)


def make_trainer(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=list(callbacks), **{"max_epochs": 1, **settings},
    )  # fmt: skip


def fit(trainer: Trainer, module: VisionLanguageModule | None = None) -> None:
    module = module or VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    batches: list[ImageTextBatch] = [tiny_batch(4, seed=seed) for seed in range(3)]
    trainer.fit(module, DataLoader(batches, batch_size=None), DataLoader(batches[:1], batch_size=None))  # type: ignore[arg-type]


def count(trainer: Trainer) -> Counter[type]:
    kinds = (SigtermCallback, RunLockCallback, LastCheckpointCallback, ModelCheckpoint)
    return Counter(type(callback) for callback in attributes_of(trainer).callbacks if type(callback) in kinds)


def test_a_script_has_the_safeguards_of_the_command_line_once(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    fit(trainer, module)
    expected = {SigtermCallback: 1, RunLockCallback: 1, LastCheckpointCallback: 1}
    assert count(trainer) == expected
    assert isinstance(trainer.strategy.checkpoint_io, CheckedCheckpointIO)
    last = (tmp_path / "checkpoints" / "last.ckpt").resolve()
    assert torch.load(last, weights_only=True)["global_step"] == 3
    trainer.fit_loop.max_epochs = 2  # a second fit with the same trainer continues in its folder
    fit(trainer, module)
    assert count(trainer) == expected
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6


def test_configured_checkpoints_are_kept(tmp_path: Path) -> None:
    for number, chosen in enumerate((ModelCheckpoint(monitor="val/loss"), ModelCheckpoint(filename="mine-{step}"))):
        trainer = make_trainer(tmp_path / str(number), chosen)
        fit(trainer)
        assert count(trainer)[ModelCheckpoint] == 1
        assert count(trainer)[LastCheckpointCallback] == 1
        assert chosen.best_model_path
    given = LastCheckpointCallback(num_kept=3)
    trainer = make_trainer(tmp_path / "given", given)
    fit(trainer)
    assert [each for each in attributes_of(trainer).callbacks if isinstance(each, ModelCheckpoint)] == [given]


def test_without_checkpoints_none_is_added(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, enable_checkpointing=False)
    fit(trainer)
    assert count(trainer) == {SigtermCallback: 1, RunLockCallback: 1}
    assert list(tmp_path.glob("**/*.ckpt")) == []


def test_predictions_of_a_script_have_safeguards(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    batches = [tiny_tokens(seed) for seed in range(3)]
    predictions = trainer.predict(ScoringModule(TinyPairScorer()), DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    assert predictions is not None
    assert len(predictions) == 3
    assert count(trainer)[SigtermCallback] == count(trainer)[RunLockCallback] == 1


class _Terminate(Callback):
    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_ends_a_script_after_a_step_with_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        fit(make_trainer(tmp_path, _Terminate(), max_epochs=2))
    assert stop.value.code == 143
    steps = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 2 <= steps < 6
