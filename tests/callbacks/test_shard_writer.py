import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from synth2_lightning import __version__
from synth2_lightning.callbacks.shard_writer import ShardWriterCallback
from synth2_lightning.datamodules.real import RealDataModule
from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.modules.tokenization import TokenizationModule
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.sources.folder import FolderSource
from synth2_lightning.testing import TinyImageTokenizer
from synth2_lightning.types import ImageTextBatch

pytestmark = pytest.mark.filterwarnings("ignore:The 'predict_dataloader' does not have many workers")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "images").mkdir()
    for number in range(7):
        Image.new("L", (8, 8), 16 * number).save(tmp_path / "images" / f"{number}.png")
        (tmp_path / "images" / f"{number}.txt").write_text(f"a {number}\none {number}")
    (tmp_path / "images" / "2.png").write_bytes(b"damaged")
    return tmp_path / "images"


class Constant(TokenizationModule):
    def predict_step(self, batch: ImageTextBatch, batch_idx: int) -> int:  # type: ignore[override]
        return 0


class Killed(TokenizationModule):
    """Fails in its third batch."""

    def predict_step(self, batch: ImageTextBatch, batch_idx: int):  # type: ignore[no-untyped-def]  # noqa: ANN201
        if batch_idx == 2:
            raise KeyError("killed")
        return super().predict_step(batch, batch_idx)


class Counting(TokenizationModule):
    """Records the keys of its batches."""

    def __init__(self) -> None:
        super().__init__(TinyImageTokenizer())
        self.keys: list[str] = []

    def predict_step(self, batch: ImageTextBatch, batch_idx: int):  # type: ignore[no-untyped-def]  # noqa: ANN201
        self.keys += batch.keys
        return super().predict_step(batch, batch_idx)


class Withheld(FolderSource):
    is_evaluation = True


def predict(
    images: Path, module: TokenizationModule, kind: type[FolderSource] = FolderSource, **settings: Any
) -> object:
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ShardWriterCallback(str(images.parent / "shards"), records_per_part=3)],
        **settings,
    )
    source = kind(str(images))
    return trainer.predict(module, RealDataModule(predict=source, val_batch_size=2, image_size=8, num_workers=0))


def check(shards: Path) -> None:
    reader = ShardReader(shards)
    reader.load()
    images = reader.read(range(len(reader)))
    numbers = [int(key) for key in images.keys]
    assert sorted(numbers) == [0, 1, 3, 4, 5, 6]
    assert images.captions == tuple((f"a {number}", f"one {number}") for number in numbers)
    assert images.sources == ("folder",) * 6
    assert torch.equal(images.tokens.ids, torch.tensor(numbers)[:, None, None].expand(6, 4, 1))
    assert images.tokens.codebook == TinyImageTokenizer.codebook
    assert images.codebook_size == 16


def test_photos_become_shards(images: Path) -> None:
    assert predict(images, TokenizationModule(TinyImageTokenizer())) is None

    check(images.parent / "shards")
    manifest = json.loads((images.parent / "shards" / "manifest.json").read_text())
    assert list(manifest["parts"].values()) == [3, 3]
    assert manifest["provenance"].pop("finished")
    assert manifest["provenance"] == {
        "synth2_lightning": __version__,
        "made_by": "TokenizationModule",
        "sources": ["folder"],
        "settings": {
            "model": {
                "tokenizer_class": "TinyImageTokenizer",
                "codebook": TinyImageTokenizer.codebook,
                "weights": "TinyImageTokenizer:e2392a0f",
            },
            "data": {"image_size": 8, "is_evaluation": False},
            "trainer": {"precision": "32-true"},
        },
    }


def test_a_killed_run_is_resumed(images: Path) -> None:
    with pytest.raises(KeyError, match="killed"):
        predict(images, Killed(TinyImageTokenizer()))
    (part,) = (images.parent / "shards").iterdir()
    first = part.read_bytes()

    module = Counting()
    predict(images, module)
    check(images.parent / "shards")
    assert part.read_bytes() == first
    # Written images are not encoded again; the damaged image is read again, and 4 replaces it.
    assert module.keys == ["4", "4", "5", "6"]


def test_a_finished_run_writes_nothing_again(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    predict(images, TokenizationModule(TinyImageTokenizer()))
    with caplog.at_level("INFO"):
        predict(images, TokenizationModule(TinyImageTokenizer()))

    check(images.parent / "shards")
    assert "images were in" in caplog.text


def test_a_run_is_resumed_in_the_same_precision_only(images: Path) -> None:
    with pytest.raises(KeyError, match="killed"):
        predict(images, Killed(TinyImageTokenizer()), precision="bf16-mixed")
    with pytest.raises(ValueError, match=r"trainer\.precision.*'bf16-mixed'.*'32-true'"):
        predict(images, TokenizationModule(TinyImageTokenizer()))


def test_tokens_of_an_evaluation_split_are_not_trained_on(images: Path) -> None:
    predict(images, TokenizationModule(TinyImageTokenizer()), Withheld)
    data = SyntheticDataModule(str(images.parent / "shards"), num_workers=0)
    with pytest.raises(ValueError, match=r"/shards\b.*evaluation split"):
        data.setup("fit")
    with pytest.raises(ValueError, match=r"data\.is_evaluation.*True.*False"):
        predict(images, TokenizationModule(TinyImageTokenizer()))


def test_other_predictions_are_refused(images: Path) -> None:
    with pytest.raises(TypeError, match=r"\bint\b.*Constant.*TokenizedI"):
        predict(images, Constant(TinyImageTokenizer()))
