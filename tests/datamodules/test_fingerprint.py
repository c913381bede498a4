"""Fingerprint of the training data, by which a resumed run detects changes."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from synth2_lightning.callbacks.run_settings import RunSettingsCallback
from synth2_lightning.callbacks.settings_changes import RECORD
from synth2_lightning.datamodules.fraction import ConstantFraction
from synth2_lightning.datamodules.mixed import MixedDataModule
from synth2_lightning.datamodules.pairs import Subset
from synth2_lightning.datamodules.real import RealDataModule
from synth2_lightning.datamodules.synthetic import ShardPairs, SyntheticDataModule
from synth2_lightning.scenes.source import ScenesSource
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.sources.folder import FolderSource

MakeSource = Callable[..., FolderSource]
NUM_IMAGES = 4


def data_of(source: Any) -> RealDataModule:
    data = RealDataModule(train=source, image_size=8, num_workers=0)
    data.setup("fit")
    return data


CHANGES: dict[str, Callable[[Path], object]] = {
    "another caption": lambda folder: (folder / "002.txt").write_text("another\ncaption 1 of 002"),
    "a caption less": lambda folder: (folder / "002.txt").write_text("caption 0 of 002"),
    "captions that are joined": lambda folder: (folder / "002.txt").write_text("caption 0 of 002caption 1 of 002"),
    "captions in another order": lambda folder: (folder / "002.txt").write_text("caption 1 of 002\ncaption 0 of 002"),
    "an image less": lambda folder: (folder / "003.png").unlink(),
    "an image more": lambda folder: [
        (folder / f"004{end}").write_bytes((folder / f"002{end}").read_bytes()) for end in (".png", ".txt")
    ],
    "an image under another name": lambda folder: [
        (folder / f"002{end}").rename(folder / f"009{end}") for end in (".png", ".txt")
    ],
    "another image of the same name": lambda folder: Image.new("L", (8, 8), 99).save(folder / "002.png"),
    "a damaged image": lambda folder: (folder / "002.png").write_bytes(b"no image"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_changed_photos_and_captions_change_it(kind: str, make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source(NUM_IMAGES)
    before = data_of(source).fingerprint()
    for path in (tmp_path / "real").iterdir():
        os.utime(path, (1, 1))
    assert data_of(FolderSource(str(tmp_path / "real"), "real")).fingerprint() == before
    CHANGES[kind](tmp_path / "real")
    assert data_of(FolderSource(str(tmp_path / "real"), "real")).fingerprint() != before


def test_rendered_images_have_a_fingerprint() -> None:
    first, again, fewer = (data_of(ScenesSource("train", number)).fingerprint() for number in (3, 3, 2))
    assert first == again != fewer
    assert first["num_pairs"] == 15


def test_shards_have_that_of_their_rows_and_of_the_selection(make_shards: Callable[[int], str]) -> None:
    folder = make_shards(5)
    readers = [ShardReader(folder, limit) for limit in (None, 5, 4)]
    for reader in readers:
        reader.load()
    whole, five, four = (ShardPairs(reader).fingerprint() for reader in readers)
    assert whole == five != four
    pairs = ShardPairs(readers[0])
    assert len({Subset(pairs, items).fingerprint() for items in ([0, 1], [1, 0], [0])} | {whole}) == 4


def test_mixed_data_have_that_of_both_kinds(make_source: MakeSource, make_shards: Callable[[int], str]) -> None:
    shards, source = make_shards(5), make_source(3)

    def mix(limit: int | None) -> dict[str, Any]:
        real = RealDataModule(source, image_size=8)
        data = MixedDataModule(real, SyntheticDataModule(shards, limit=limit), 4, ConstantFraction(0.5), num_workers=0)
        trainer: Any = SimpleNamespace(global_rank=0, world_size=1)
        data.trainer = trainer
        data.setup("fit")
        return data.fingerprint()

    assert mix(None) == mix(5) != mix(4)
    assert mix(4)["num_pairs"] == 10


def test_changed_data_are_refused_unless_allowed(make_source: MakeSource) -> None:
    settings: dict[str, Any] = {"exact": {}, "other": {}}
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data = trainer.datamodule = data_of(make_source(NUM_IMAGES))  # type: ignore[attr-defined]  # as Lightning sets it
    checkpoint: dict[str, Any] = {}
    RunSettingsCallback(settings).on_save_checkpoint(trainer, LightningModule(), checkpoint)
    RunSettingsCallback(settings).on_load_checkpoint(trainer, LightningModule(), checkpoint)
    assert checkpoint[RECORD]["data"] == data.fingerprint()
    trainer.datamodule = data_of(make_source(3, name="other"))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"num_pairs: 8 -> 6\n.*checksum"):
        RunSettingsCallback(settings).on_load_checkpoint(trainer, LightningModule(), checkpoint)
    with pytest.warns(UserWarning, match=r"with changes.*\n.*num_pairs: 8 -> 6"):
        RunSettingsCallback(settings, allows_changes=True).on_load_checkpoint(trainer, LightningModule(), checkpoint)
