from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch

from synth2_lightning.datamodules.fraction import ConstantFraction
from synth2_lightning.datamodules.mixed import MixedDataModule
from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.datamodules.tokenized import TokenizedDataModule
from synth2_lightning.io.fingerprints import hash_record
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.sources.folder import FolderSource
from synth2_lightning.testing import TinyImageTokenizer
from synth2_lightning.types import MixedImages, Pixels, SampleInfo, TokenizedImages, VQTokens

MakeSource = Callable[..., FolderSource]
MakeShards = Callable[[int], str]


def test_it_trains_on_tokens_and_validates_on_photos(make_source: MakeSource, make_shards: MakeShards) -> None:
    data = TokenizedDataModule(
        make_shards(9),
        val=make_source(3),
        batch_size=4,
        image_encoder=TinyImageTokenizer(),
        num_workers=0,
        limit=6,
        val_batch_size=3,
    )
    data.setup("fit")
    batches = [*data.train_dataloader(), *data.train_dataloader(), *data.train_dataloader()]

    assert len(batches) == 3
    assert all(isinstance(batch.image, VQTokens) for batch in batches)
    ranked = sorted(range(9), key=lambda row: hash_record(("synthetic", f"s{row}")))
    assert {key for batch in batches for key in batch.keys} == {f"s{row}" for row in ranked[:6]}
    assert data.training_captions() == [(f"synthetic {row}",) for row in ranked[:6]]
    judged: Any = next(iter(data.val_dataloader()))
    assert isinstance(judged.image, Pixels)
    assert len(judged) == 3


def test_is_mixed_with_synthetic_pairs_in_token_space(make_source: MakeSource, make_shards: MakeShards) -> None:
    shards = make_shards(8)
    real = TokenizedDataModule(shards, val=make_source(2), num_workers=0, limit=2)
    data = MixedDataModule(real, SyntheticDataModule(shards), 4, ConstantFraction(0.5), num_workers=0)
    cpu = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(global_rank=0, world_size=1, state=SimpleNamespace(fn="fit"), strategy=cpu)
    data.trainer = trainer
    data.setup("fit")
    batches = list(data.train_dataloader())

    assert data.count_train_pairs() == (2, 8)
    for batch in batches:
        assert isinstance(batch.image, MixedImages)
        assert all(isinstance(part, VQTokens) for part in batch.image.parts)
        assert set(batch.keys[:2]) == set(batches[0].keys[:2])
        assert len(set(batch.keys[:2])) == 2


def write_shards(folder: Path, keys: Sequence[str]) -> str:
    writer = ShardWriter(folder)
    samples = tuple(SampleInfo(key, "synthetic") for key in keys)
    ids = torch.tensor([int(key[1:]) for key in keys])[:, None, None].expand(-1, 4, 1)
    captions = tuple((f"of {key}", f"and {key}") for key in keys)
    writer.append(TokenizedImages(samples, captions, VQTokens(ids, "tiny-16:00000000"), 512))
    writer.close()
    finish(folder, {})
    return str(folder)


def test_a_limit_does_not_depend_on_how_the_shards_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    keys = [f"s{number}" for number in range(20)]
    batches = []
    for name, order in (("one", keys), ("another", keys[::-1])):
        data = TokenizedDataModule(write_shards(tmp_path / name, order), batch_size=6, num_workers=0, limit=7)
        data.setup("fit")
        batches.append(list(data.train_dataloader()))
        assert len(data.train_pairs) == 14
    for one, another in zip(*batches, strict=True):
        assert one.keys == another.keys
        assert one.captions == another.captions
        assert isinstance(one.image, VQTokens)
        assert isinstance(another.image, VQTokens)
        assert torch.equal(one.image.ids, another.image.ids)
    with pytest.raises(ValueError, match=r"TokenizedDataModule got limit=0"):
        TokenizedDataModule("shards", limit=0)


def test_rows_are_those_of_the_photos(make_source: MakeSource, make_shards: MakeShards, tmp_path: Path) -> None:
    photos = make_source(3)
    photos.name = "synthetic"
    data = TokenizedDataModule(make_shards(4), batch_size=3, num_workers=0, photos=photos)
    data.setup("fit")
    with pytest.raises(ValueError, match=r"3 of the 3 photos.*\('synthetic', '000'\).*\('synthetic', 's0'\)"):
        data.train_dataloader()
    for path in (tmp_path / "real").iterdir():
        path.rename(path.with_name(f"s{int(path.stem)}{path.suffix}"))
    photos = FolderSource(str(tmp_path / "real"), "synthetic", limit=2)
    data = TokenizedDataModule(str(tmp_path / "shards"), batch_size=2, num_workers=0, photos=photos)
    data.setup("fit")
    assert {key for batch in data.train_dataloader() for key in batch.keys} == {"s0", "s1"}
