from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.caption_samples import CaptionSamplesCallback, draw_tile
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch


def test_a_tile_has_the_image_above_its_texts() -> None:
    tile = np.asarray(draw_tile(np.full((3, 8, 8), 200, np.uint8), "a bright field", ["one bright field"]))
    assert (tile[:224] == 200).all()
    assert (tile[224:] == 0).any()


def columns_with_ink(text: str) -> list[int]:
    below = np.asarray(draw_tile(np.full((3, 8, 8), 200, np.uint8), text, []))[224:]
    return sorted(set(np.nonzero((below < 128).any(axis=(0, 2)))[0].tolist()))


def test_lines_wrap_at_the_width_of_the_tile() -> None:
    wide = columns_with_ink(" ".join(["mmmmmm"] * 30))
    assert 180 < wide[-1] < 224
    assert columns_with_ink("m" * 90)[-1] == 223  # a word that is too long is cut by the edge, not dropped


def test_truncated_text_ends_with_an_ellipsis() -> None:
    long, cut = ("word " * 60).strip(), ("word " * 60).strip() + " end"
    assert columns_with_ink(long) == columns_with_ink(cut)
    assert columns_with_ink("word " * 3) != columns_with_ink("word " * 4)


def test_words_in_no_reference_are_red() -> None:
    image = np.full((3, 8, 8), 200, np.uint8)

    def has_red(caption: str) -> bool:
        below = np.asarray(draw_tile(image, caption, ["A dog, running.", "one brown dog"]))[224:].astype(int)
        return bool((below[..., 0] - below[..., 1] > 100).any())

    assert has_red("a cat")
    assert not has_red("a brown dog running")


def test_validation_writes_a_png_and_a_tensorboard_image(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="")
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    trainer = Trainer(
        accelerator="cpu", logger=logger, callbacks=[CaptionSamplesCallback(num_images=3, num_columns=2)],
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.validate(module, DataLoader([tiny_batch(2), tiny_batch(2)], batch_size=None), verbose=False)  # type: ignore[arg-type]
    with Image.open(Path(logger.log_dir) / "samples" / "step=0.png") as written:
        assert written.size == (12 + 224 + 16 + 224 + 12, 36 + 2 * (224 + 4 + 6 * 15) + 16 + 12)
    assert any(Path(logger.log_dir).glob("events*"))


def test_refuses_no_images() -> None:
    with pytest.raises(ValueError, match=r"\b0\b.*\b4 columns"):
        CaptionSamplesCallback(num_images=0)


def test_a_folder_that_is_not_writable_is_reported(tmp_path: Path) -> None:
    (tmp_path / "samples").write_text("a file where a folder should be")
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=[CaptionSamplesCallback(folder=str(tmp_path / "samples"))],
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(OSError, match=r"samples.*--trainer\.default_root_dir"):
        trainer.validate(module, DataLoader([tiny_batch(2)], batch_size=None), verbose=False)  # type: ignore[arg-type]
