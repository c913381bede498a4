from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from synth2_lightning.callbacks.run_folder import run_folder


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger, WandbLogger])
def test_each_run_has_a_folder_with_its_checkpoints(kind: type[Logger], tmp_path: Path) -> None:
    options = {"offline": True} if kind is WandbLogger else {}
    folders = []
    for version in ("first", "second"):
        logger = kind(save_dir=tmp_path, name="runs", version=version, **options)  # type: ignore[call-arg]
        trainer = Trainer(accelerator="cpu", logger=logger, default_root_dir=tmp_path / "other")
        folders.append(run_folder(trainer))
        assert trainer.checkpoint_callback is not None
        trainer.checkpoint_callback.setup(trainer, None, "fit")  # type: ignore[arg-type]
        assert Path(trainer.checkpoint_callback.dirpath).parent == folders[-1]  # type: ignore[attr-defined]
    assert [folder.name for folder in folders] == ["first", "second"]


def test_a_logger_without_a_folder_writes_to_that_of_the_trainer(tmp_path: Path) -> None:
    assert run_folder(Trainer(accelerator="cpu", fast_dev_run=True, default_root_dir=tmp_path)) == tmp_path
