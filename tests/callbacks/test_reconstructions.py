from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from synth2_lightning.callbacks.reconstructions import ReconstructionsCallback, draw_pair
from synth2_lightning.testing import tiny_batch
from synth2_lightning.types import Reconstruction


def make_trainer(folder: Path, **settings: Any) -> MagicMock:
    known = {"is_global_zero": True, "sanity_checking": False, "global_step": 7, "loggers": [], **settings}
    return MagicMock(spec=Trainer, default_root_dir=str(folder), **known)


def run(callback: ReconstructionsCallback, trainer: MagicMock, num_batches: int = 3) -> None:
    module = MagicMock(spec=LightningModule)
    callback.on_validation_epoch_start(trainer, module)
    black = torch.full((2, 3, 8, 8), -1.0)
    outputs = {"reconstruction": Reconstruction(-black, black, torch.tensor(0.0), torch.zeros(2, 4, 1).long())}
    for number in range(num_batches):
        callback.on_validation_batch_end(trainer, module, outputs, tiny_batch(), number)
    callback.on_validation_epoch_end(trainer, module)


def test_originals_are_drawn_above_reconstructions(tmp_path: Path) -> None:
    run(ReconstructionsCallback(num_images=3, num_columns=2), make_trainer(tmp_path))
    grid = np.asarray(Image.open(tmp_path / "reconstructions" / "step=7.png"))
    tiles = grid[36:-12, 12:]  # below the title
    assert len(tiles) == 16 + 8 + 16
    assert (tiles[:8, :8] == 0).all()
    assert (tiles[8:16, :8] == 255).all()
    assert (tiles[24:, 16:] == 255).all()  # three images, no fourth
    assert (tiles[24:32, :8] == 0).all()


def test_the_folder_can_be_chosen(tmp_path: Path) -> None:
    run(ReconstructionsCallback(folder=str(tmp_path / "here")), make_trainer(tmp_path / "there"))
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("settings", [{"sanity_checking": True}, {"is_global_zero": False}])
def test_nothing_is_drawn_in_sanity_checks_and_on_other_ranks(tmp_path: Path, settings: dict[str, bool]) -> None:
    run(ReconstructionsCallback(), make_trainer(tmp_path, **settings))
    assert not list(tmp_path.iterdir())


def test_values_out_of_range_are_clamped() -> None:
    tile = torch.stack([torch.full((4, 2), value) for value in (-3.0, 3.0, 0.0)])
    assert np.asarray(draw_pair(tile, tile))[0, 0].tolist() == [0, 255, 128]


def test_steps_without_reconstruction_are_refused() -> None:
    with pytest.raises(TypeError, match=r"\bdict\b.*ReconstructionOutput"):
        ReconstructionsCallback().draw_tiles({}, tiny_batch(), 1)


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\b0\b.*\b8 columns"):
        ReconstructionsCallback(num_images=0)


def test_folders_that_are_not_writable_are_named(tmp_path: Path) -> None:
    (tmp_path / "reconstructions").write_text("a file is in the way")
    with pytest.raises(OSError, match=r"reconstructions.*[Ee]xpected a folder"):
        run(ReconstructionsCallback(), make_trainer(tmp_path))
