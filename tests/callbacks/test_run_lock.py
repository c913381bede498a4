from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger

from synth2_lightning.callbacks.run_lock import RunLockCallback
from synth2_lightning.io.locks import lock_folder


class LockRecorder(Callback):
    """Records the folders that are locked during training; raises an error, if one is given."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.locked: list[str] = []
        self.error = error

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        root = Path(trainer.default_root_dir)
        self.locked = sorted(str(path.parent.relative_to(root)) for path in root.rglob(".lock"))
        if self.error is not None:
            raise self.error


def fit(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=CSVLogger(folder, name="runs", version=0),
        enable_progress_bar=False,
        enable_model_summary=False,
        max_steps=1,
        limit_val_batches=0,
        callbacks=[RunLockCallback(), *callbacks],
        **settings,
    )
    trainer.fit(BoringModel())
    return trainer


pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec. is deprecated"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists and is not empty"),
]


def test_logs_and_checkpoints_are_locked_during_a_run(tmp_path: Path) -> None:
    recorder = LockRecorder()
    fit(tmp_path, recorder, ModelCheckpoint(dirpath=tmp_path / "kept"))
    assert recorder.locked == ["kept", "runs/version_0"]
    assert list(tmp_path.rglob(".lock")) == []
    fit(tmp_path, ModelCheckpoint(dirpath=tmp_path / "kept"))


@pytest.mark.parametrize("place", ["runs/version_0", "kept"])
def test_a_second_run_is_refused_before_it_writes(tmp_path: Path, place: str) -> None:
    with (
        lock_folder(tmp_path / place),
        pytest.raises(BlockingIOError, match=rf"{place}.*process \d+"),
    ):
        fit(tmp_path, ModelCheckpoint(dirpath=tmp_path / "kept"))
    assert list(tmp_path.rglob("*.ckpt")) == []
    assert list(tmp_path.rglob(".lock")) == []


def test_after_an_error_the_same_process_can_start_the_next_run(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="stopped"):
        fit(tmp_path, LockRecorder(KeyError("stopped")))
    fit(tmp_path)
