import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from synth2_lightning.shards.manifest import Manifest
from synth2_lightning.shards.parts import largest_id
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.types import SampleInfo, TokenizedImages, VQTokens

IDS = torch.arange(5 * 8).view(5, 4, 2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    writer = ShardWriter(tmp_path / "shards", records_per_part=2)
    captions = (("a",), ("b", "c"), ("d",), ("e", "f", "g"), ("h",))
    writer.append(
        TokenizedImages(tuple(SampleInfo(key, "coco") for key in "01234"), captions, VQTokens(IDS, "tiny:1"), 512)
    )
    writer.close()
    finish(tmp_path / "shards", {})
    return tmp_path / "shards"


def test_rows_are_read_in_the_requested_order(folder: Path) -> None:
    reader = ShardReader(folder)
    reader.load()
    reader.load()
    images = pickle.loads(pickle.dumps(reader)).read([3, 0, 3])

    assert len(reader) == 5
    assert images.keys == ("3", "0", "3")
    assert images.sources == ("coco",) * 3
    assert images.captions == (("e", "f", "g"), ("a",), ("e", "f", "g"))
    assert images.tokens.codebook == "tiny:1"
    assert torch.equal(images.tokens.ids, IDS[[3, 0, 3]])
    assert reader.read_captions([3, 0, 3]) == list(images.captions)
    assert reader.count_captions().tolist() == [1, 2, 1, 3, 1]


def test_all_that_is_known_of_a_row_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    images = TokenizedImages(
        (SampleInfo("0", "made", "otter", 2**63 - 1), SampleInfo("1", "made", "", 0)),
        (("a",), ("b", "c")),
        VQTokens(IDS[:2], "tiny:1"),
        512,
        scores=((0.5,), (1.5, -2.0)),
    )
    writer = ShardWriter(tmp_path / "shards")
    writer.append(images)
    writer.close()
    finish(tmp_path / "shards", {})
    reader = ShardReader(tmp_path / "shards")
    reader.load()
    whole = reader.read_all_columns([1, 0])

    assert whole.samples == images.samples[::-1]
    assert whole.scores == ((1.5, -2.0), (0.5,))
    assert torch.equal(whole.tokens.ids, IDS[[1, 0]])
    assert reader.read_scores().tolist() == [0.5, 1.5, -2.0]
    assert reader.read_keys() == [("made", "0"), ("made", "1")]


def test_the_message_of_shards_without_scores_names_the_command(folder: Path) -> None:
    reader = ShardReader(folder)
    reader.load()

    whole = reader.read_all_columns([0, 1])
    assert whole.samples == (SampleInfo("0", "coco"), SampleInfo("1", "coco"))
    assert whole.scores == ()
    with pytest.raises(ValueError, match=r"8 captions.*score\.yaml"):
        reader.read_scores()


def test_limit_keeps_the_first_rows(folder: Path) -> None:
    reader = ShardReader(str(folder), limit=3)
    reader.load()

    assert len(reader) == 3
    assert reader.count_captions().tolist() == [1, 2, 1]
    assert torch.equal(reader.read([2]).tokens.ids, IDS[[2]])
    generous = ShardReader(folder, limit=9)
    generous.load()
    assert len(generous) == 5


def test_largest_id_needs_no_statistics(folder: Path) -> None:
    part = folder / "part-00000-00001.parquet"
    assert largest_id(part) == 31
    pq.write_table(pq.read_table(part), part, write_statistics=False)
    assert largest_id(part) == 31


def test_use_before_load_is_refused(folder: Path) -> None:
    with pytest.raises(RuntimeError, match=r"before load\(\).*call load\(\)"):
        len(ShardReader(folder))
    with pytest.raises(RuntimeError, match=r"before load\(\)"):
        ShardReader(folder).read_captions([0])


def test_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"limit=0.*1.*rows"):
        ShardReader("shards", limit=0)


def test_missing_folder_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"folder.*shards.*'gone'"):
        ShardReader("gone").load()


def test_unfinished_folder_is_refused(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json"):
        ShardReader(folder).load()


def test_missing_part_is_named(folder: Path) -> None:
    (folder / "part-00000-00001.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"'part-00000-00001.*parquet'.*restore"):
        ShardReader(folder).load()


def test_part_beside_the_manifest_is_named(folder: Path) -> None:
    (folder / "part-00000-00009.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"'part-00000-00009.*parquet'.*manifest"):
        ShardReader(folder).load()


def test_other_number_of_rows_is_refused(folder: Path) -> None:
    part = folder / "part-00000-00000.parquet"
    pq.write_table(pq.read_table(part).slice(0, 1), part)
    with pytest.raises(ValueError, match=r"1 rows.*2"):
        ShardReader(folder).load()


def test_other_number_of_ids_is_refused(folder: Path) -> None:
    part = folder / "part-00000-00000.parquet"
    table = pq.read_table(part)
    tokens = pa.array([[1, 2]] * 2, pa.list_(pa.uint16(), 2))
    pq.write_table(table.set_column(3, "tokens", tokens), part)
    with pytest.raises(ValueError, match=r"2 ids.*8"):
        ShardReader(folder).load()


def test_ids_beyond_the_codebook_are_refused(folder: Path) -> None:
    manifest = Manifest.read(folder)
    replace(manifest, tokens=replace(manifest.tokens, codebook_size=20)).save(folder)
    with pytest.raises(ValueError, match=r"31.*'tiny:1'.*0.*19"):
        ShardReader(folder).load()


def test_unwritable_cache_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "cache")
    with pytest.raises(OSError, match=r"mapped.*name.*HF_DATASETS_CACHE"):
        ShardReader(folder).load()


def test_shards_written_again_with_equal_names_sizes_and_times_are_read_again(folder: Path, tmp_path: Path) -> None:
    seen = set()
    for order in ("ab", "ba", "ac", "ab"):
        shutil.rmtree(folder, ignore_errors=True)
        writer = ShardWriter(folder)
        captions = tuple((f"caption {key}",) for key in order)
        samples = tuple(SampleInfo(key, "coco") for key in order)
        writer.append(TokenizedImages(samples, captions, VQTokens(IDS[:2], "tiny:1"), 512))
        writer.close()
        finish(folder, {})
        os.utime(folder / "part-00000-00000.parquet", (1.7e9, 1.7e9))
        reader = ShardReader(folder)
        reader.load()
        assert reader.read([0, 1]).captions == captions
        seen.add((folder / "part-00000-00000.parquet").stat().st_size)
    assert len(seen) == 1
    assert len(list((tmp_path / "cache" / "synth2_shards").iterdir())) == 3  # the first and the last are the same


def test_the_same_shards_elsewhere_or_of_another_time_are_not_copied_again(folder: Path, tmp_path: Path) -> None:
    ShardReader(folder).load()
    (copy,) = (tmp_path / "cache" / "synth2_shards").iterdir()
    before = copy.stat().st_mtime_ns
    for place in (shutil.copytree(folder, tmp_path / "elsewhere"), folder):
        for part in place.glob("*.parquet"):
            os.utime(part)
        reader = ShardReader(place)
        reader.load()
        assert reader.read([4]).captions == (("h",),)
    assert [path.stat().st_mtime_ns for path in (tmp_path / "cache" / "synth2_shards").iterdir()] == [before]


def test_regenerated_tokens_change_the_fingerprint(folder: Path) -> None:
    part = sorted(folder.glob("*.parquet"))[-1]
    table = pq.read_table(part)

    def fingerprint() -> str:
        reader = ShardReader(folder)
        reader.load()
        return reader.fingerprint()

    before = fingerprint()
    assert fingerprint() == before
    tokens = table["tokens"].combine_chunks()
    other = pa.array([[*row[:-1], row[-1] + 1] for row in tokens.to_pylist()], tokens.type)
    index = table.schema.get_field_index("tokens")
    pq.write_table(table.set_column(index, table.schema.field(index), other), part, write_page_checksum=True)
    finish(folder, {})
    assert fingerprint() != before
