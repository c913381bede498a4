import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy

from synth2_lightning.callbacks.run_settings import RunSettingsCallback
from synth2_lightning.callbacks.settings_changes import RECORD
from synth2_lightning.cli import main
from synth2_lightning.cli.checkpoint_selection import check_content, find_last


@pytest.mark.parametrize("command", ["validate", "test"])
def test_untrained_weights_are_not_scored(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([command, "--config", "mixed.yaml", "--ckpt_path=last"])
    assert stop.value.code == 1
    assert "error: There is no checkpoint in runs/version_0/checkpoints" in capsys.readouterr().err


class RandomIdLogger(Logger):
    """Logger without a log folder, as those of W&B and MLflow; the id of a run is random."""

    name, version = "project", "9f3c"

    def __init__(self, save_dir: Path) -> None:
        self._save_dir = save_dir

    @property
    def save_dir(self) -> str:
        return str(self._save_dir)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError


def test_the_last_run_of_a_logger_with_random_ids_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saver = ModelCheckpoint()
    trainer = Trainer(accelerator="cpu", logger=RandomIdLogger(tmp_path), callbacks=saver, enable_progress_bar=False)
    watch = RunSettingsCallback({"exact": {}}, False)
    assert find_last(trainer, watch, is_fit=True) is None
    assert f"{tmp_path}/project/*/checkpoints: a new run starts" in caplog.text
    for time, run in enumerate(("b", "c", "a")):
        folder = tmp_path / "project" / run / "checkpoints"
        folder.mkdir(parents=True)
        torch.save({"global_step": 5, "state_dict": {}, RECORD: watch.settings}, folder / "last.ckpt")
        os.utime(folder, (time, time))
    newest = tmp_path / "project" / "a" / "checkpoints"
    assert find_last(trainer, watch, is_fit=True) == str(newest / "last.ckpt")
    assert saver.dirpath == str(newest)


class Touch:
    """Object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_no_strategy_runs_what_is_in_a_checkpoint(tmp_path: Path) -> None:
    touched, file, folder = tmp_path / "touched", tmp_path / "last.ckpt", tmp_path / "shards.ckpt"
    torch.save({"state_dict": {}, "global_step": 1, "more": Touch(touched)}, file)
    folder.mkdir()
    torch.save({"global_step": 1}, folder / "meta.pt")
    (folder / "__0.metadata").write_bytes(pickle.dumps(Touch(touched)))  # torch's second choice after .metadata
    for strategy in (FSDPStrategy(), ModelParallelStrategy()):
        with pytest.raises(ValueError, match=r"last.ckpt.*more than tensors"):
            check_content(file, strategy)
        with pytest.raises(FileNotFoundError, match=r"shards.ckpt.*\.metadata"):
            check_content(folder, strategy)
    assert not touched.exists()
    torch.save({"state_dict": {"weight": torch.ones(500)}, "global_step": 1}, file)
    check_content(file, FSDPStrategy())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"last.ckpt.*damaged"):
        check_content(file, ModelParallelStrategy())
    with pytest.raises(IsADirectoryError, match=r"synth2 consolidate .*shards.ckpt --out"):
        check_content(folder, DDPStrategy())


def test_the_folder_of_a_run_is_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "version_0" / "checkpoints" / "last.ckpt"
    file.parent.mkdir(parents=True)
    torch.save({"state_dict": {}, "global_step": 1}, file)
    for folder in (file.parent, file.parent.parent):
        with pytest.raises(IsADirectoryError, match=r"folder with checkpoints; expected .*last\.ckpt"):
            check_content(folder, DDPStrategy())
