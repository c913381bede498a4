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
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "pictures").mkdir()
    for number in range(7):
        Image.new("L", (8, 8), 16 * number).save(tmp_path / "pictures" / f"{number}.png")
        (tmp_path / "pictures" / f"{number}.txt").write_text(f"a {number}\none {number}")
    (tmp_path / "pictures" / "2.png").write_bytes(b"damaged")
    return tmp_path / "pictures"


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
    """Remembers what it was given."""

    def __init__(self) -> None:
        super().__init__(TinyImageTokenizer())
        self.keys: list[str] = []

    def predict_step(self, batch: ImageTextBatch, batch_idx: int):  # type: ignore[no-untyped-def]  # noqa: ANN201
        self.keys += batch.keys
        return super().predict_step(batch, batch_idx)


class Withheld(FolderSource):
    is_evaluation = True


def predict(
    pictures: Path, module: TokenizationModule, kind: type[FolderSource] = FolderSource, **settings: Any
) -> object:
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ShardWriterCallback(str(pictures.parent / "shards"), records_per_part=3)],
        **settings,
    )
    source = kind(str(pictures))
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


def test_photographs_become_shards(pictures: Path) -> None:
    assert predict(pictures, TokenizationModule(TinyImageTokenizer())) is None

    check(pictures.parent / "shards")
    manifest = json.loads((pictures.parent / "shards" / "manifest.json").read_text())
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


def test_a_killed_run_goes_on(pictures: Path) -> None:
    with pytest.raises(KeyError, match="killed"):
        predict(pictures, Killed(TinyImageTokenizer()))
    (part,) = (pictures.parent / "shards").iterdir()
    first = part.read_bytes()

    module = Counting()
    predict(pictures, module)
    check(pictures.parent / "shards")
    assert part.read_bytes() == first
    # What is written is not made again; the damaged picture is tried again, and 4 stands in for it.
    assert module.keys == ["4", "4", "5", "6"]


def test_a_finished_run_writes_nothing_twice(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    predict(pictures, TokenizationModule(TinyImageTokenizer()))
    with caplog.at_level("INFO"):
        predict(pictures, TokenizationModule(TinyImageTokenizer()))

    check(pictures.parent / "shards")
    assert "pictures were in" in caplog.text


def test_a_run_goes_on_in_the_same_precision_only(pictures: Path) -> None:
    with pytest.raises(KeyError, match="killed"):
        predict(pictures, Killed(TinyImageTokenizer()), precision="bf16-mixed")
    with pytest.raises(
        ValueError, match=r"trainer\.precision is 'bf16-mixed' there and '32-true' in this run\. Expected"
    ):
        predict(pictures, TokenizationModule(TinyImageTokenizer()))


def test_tokens_of_an_evaluation_split_are_not_learnt_from(pictures: Path) -> None:
    predict(pictures, TokenizationModule(TinyImageTokenizer()), Withheld)
    data = SyntheticDataModule(str(pictures.parent / "shards"), num_workers=0)
    with pytest.raises(
        ValueError, match=r"shards to learn from, .*/shards, were made of an evaluation split: .* make them"
    ):
        data.setup("fit")
    with pytest.raises(ValueError, match=r"data\.is_evaluation is True there and False in this run"):
        predict(pictures, TokenizationModule(TinyImageTokenizer()))


def test_other_predictions_are_refused(pictures: Path) -> None:
    with pytest.raises(
        TypeError, match=r"ShardWriterCallback got int from Constant\.predict_step; expected TokenizedI"
    ):
        predict(pictures, Constant(TinyImageTokenizer()))
