from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.caption_samples import CaptionSamplesCallback, draw_grid, draw_tile
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch


def test_a_tile_shows_the_picture_and_writes_below_it() -> None:
    tile = np.asarray(draw_tile(np.full((3, 8, 8), 200, np.uint8), "a bright field", "one bright field"))
    assert (tile[:224] == 200).all()
    assert (tile[224:] == 0).any()


def test_a_grid_lays_tiles_out_in_rows() -> None:
    tiles = [Image.new("RGB", (10, 20), colour) for colour in ("red", "green", "blue")]
    grid = draw_grid(tiles, num_columns=2)
    assert grid.getpixel((5, 5)) == (255, 0, 0)
    assert grid.getpixel((20, 5)) == (0, 128, 0)
    assert grid.getpixel((5, 30)) == (0, 0, 255)


def test_validation_leaves_a_png_and_a_tensorboard_picture(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="")
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler, TinyDecoder())
    trainer = Trainer(
        accelerator="cpu", logger=logger, callbacks=[CaptionSamplesCallback(num_pictures=3, num_columns=2)],
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.validate(module, DataLoader([tiny_batch(2), tiny_batch(2)], batch_size=None), verbose=False)  # type: ignore[arg-type]
    with Image.open(Path(logger.log_dir) / "samples" / "step=0.png") as written:
        assert written.size == (2 * 232, 2 * 328)
    assert any(Path(logger.log_dir).glob("events*"))


def test_refuses_no_pictures() -> None:
    with pytest.raises(ValueError, match="was asked for 0 pictures in 4 columns; expected 1 or more of each"):
        CaptionSamplesCallback(num_pictures=0)


def test_a_folder_that_cannot_be_written_says_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "samples").write_text("a file where a folder should be")
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler, TinyDecoder())
    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=[CaptionSamplesCallback(folder=str(tmp_path))],
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(OSError, match=r"could not write to .*samples.*choose another with --trainer.default_root_dir"):
        trainer.validate(module, DataLoader([tiny_batch(2)], batch_size=None), verbose=False)  # type: ignore[arg-type]
