import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from synth2_lightning.callbacks import checkpoint_io
from synth2_lightning.callbacks.background_checkpoint_io import BackgroundCheckpointIO
from synth2_lightning.callbacks.checkpoint_io import CheckedCheckpointIO
from synth2_lightning.callbacks.last_checkpoint import LastCheckpointCallback


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Event that all writes wait for."""
    opened, save = threading.Event(), checkpoint_io._save

    def save_later(checkpoint: dict[str, Any], draft: Path) -> None:
        assert opened.wait(30)
        save(checkpoint, draft)

    monkeypatch.setattr(checkpoint_io, "_save", save_later)
    return opened


def test_the_file_has_the_values_at_the_call_and_replaces_others_only_when_complete(
    tmp_path: Path, gate: threading.Event
) -> None:
    files, old, new = BackgroundCheckpointIO(), tmp_path / "step=1.ckpt", tmp_path / "step=2.ckpt"
    gate.set()
    files.save_checkpoint({"step": 1}, old)
    files.teardown()
    gate.clear()
    content = {"weight": torch.ones(2), "names": {"best": 1}}
    files.save_checkpoint(content, new)
    files.remove_checkpoint(old)
    content["weight"].zero_()  # type: ignore[attr-defined]
    content["names"]["best"] = 2  # type: ignore[index]
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["step=1.ckpt"]
    gate.set()
    loaded = files.load_checkpoint(new)  # waits for the write
    assert loaded["weight"].tolist() == [1, 1]
    assert loaded["names"] == {"best": 1}
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["step=2.ckpt"]
    files.teardown()


def test_a_failed_write_is_reported_and_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, old, new = BackgroundCheckpointIO(), tmp_path / "step=1.ckpt", tmp_path / "step=2.ckpt"
    files.save_checkpoint({"step": 1}, old)
    files.teardown()

    def fill_disk(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", fill_disk)
    files.save_checkpoint({"step": 2}, new)
    files.remove_checkpoint(old)
    with pytest.raises(OSError, match=r"step=2\.ckpt.*full disk"):
        files.save_checkpoint({"step": 3}, tmp_path / "step=3.ckpt")
    files.save_checkpoint({"step": 3}, tmp_path / "step=3.ckpt")
    with pytest.raises(OSError, match=r"step=3\.ckpt"):
        files.teardown()
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["step=1.ckpt"]


class Counting(LightningModule):
    """Module whose weight is the number of optimization steps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return -self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=1.0)


class Sigterm(Callback):
    """Sends SIGTERM after seven steps."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == 7:
            raise SIGTERMException


@pytest.mark.filterwarnings("ignore:The `srun` command is available")
def test_a_run_that_sigterm_ends_leaves_the_same_checkpoints(tmp_path: Path) -> None:
    contents = []
    for files in (CheckedCheckpointIO(), BackgroundCheckpointIO()):
        folder = tmp_path / type(files).__name__
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[files],
            callbacks=[LastCheckpointCallback(str(folder), every_n_train_steps=2), Sigterm()],
        )
        with pytest.raises(SIGTERMException):
            trainer.fit(Counting(), DataLoader(list(range(20)), num_workers=0))  # type: ignore[arg-type]
        paths = sorted(folder.glob("*.ckpt"))
        assert [path.name for path in paths] == ["last.ckpt", "step=4.ckpt", "step=6.ckpt", "step=7.ckpt"]
        assert paths[0].resolve() == paths[-1]
        contents.append([CheckedCheckpointIO().load_checkpoint(path) for path in paths])
        for content in contents[-1]:
            del content["callbacks"]  # contains the name of the folder
    assert [float(content["state_dict"]["weight"]) for content in contents[1]] == [7, 4, 6, 7]
    assert repr(contents[0]) == repr(contents[1])
