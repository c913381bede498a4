from pathlib import Path

import datasets
import pytest
import torch
from torch.nn.functional import one_hot

from synth2_lightning.modules import caption_index
from synth2_lightning.modules.caption_index import CaptionIndex
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.testing import TinyTextEncoder
from synth2_lightning.types import SampleInfo, TokenizedImages, VQTokens

CAPTIONS = (("a dog",), (), ("two cats", "a red bird"), ("a dog",), ("a tree",), ("a dog", "two cats"))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShardReader:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return make_reader(tmp_path / "pool", CAPTIONS)


def make_reader(folder: Path, captions: tuple[tuple[str, ...], ...]) -> ShardReader:
    """Row ``i`` has the key ``9 - i``."""
    samples = tuple(SampleInfo(str(9 - row), "pool", seed=row) for row in range(len(captions)))
    ids = torch.arange(len(captions))[:, None, None].expand(-1, 4, 1)
    writer = ShardWriter(folder)
    writer.append(TokenizedImages(samples, captions, VQTokens(ids, "tiny-16:00000000"), 16))
    writer.close()
    finish(folder, {})
    reader = ShardReader(folder)
    reader.load()
    return reader


def test_equal_captions_are_one_entry_with_all_their_images(reader: ShardReader) -> None:
    index = CaptionIndex(reader, TinyTextEncoder())
    assert index.embeddings.shape == (4, 8)  # a dog, a red bird, a tree, two cats
    assert [index.list_images(caption, 0).tolist() for caption in range(4)] == [[5, 3, 0], [2], [4], [5, 2]]
    assert index.list_images(0, 1).tolist() == [3, 0, 5]
    assert index.list_images(0, 2**64 - 1).tolist() == index.list_images(0, (2**64 - 1) % 3).tolist()


@pytest.mark.parametrize("num_columns", [1, 3, 1000])
def test_the_nearest_captions_are_found_in_order(
    reader: ShardReader, num_columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption_index, "_NUM_COLUMNS", num_columns)
    index = CaptionIndex(reader, TinyTextEncoder())
    queries = torch.randn(7, 8, generator=torch.Generator().manual_seed(0))
    cosines = queries @ index.embeddings.T
    assert torch.equal(index.find(queries, 3), cosines.argsort(dim=1, descending=True)[:, :3])
    assert index.find(queries, 9).shape == (7, 4)
    assert torch.equal(index.find(index.embeddings, 1)[:, 0], one_hot(torch.arange(4)).argmax(1))


def test_a_pool_without_captions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    with pytest.raises(ValueError, match=r"empty have no captions; expected at least one"):
        CaptionIndex(make_reader(tmp_path / "empty", ((), ())), TinyTextEncoder())
