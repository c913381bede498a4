from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from synth2_lightning.shards.manifest import Manifest
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.types import SampleInfo, TokenizedImages, VQTokens


def images(keys: list[str], codebook: str = "tiny:1", codebook_size: int = 512, low: int = 0) -> TokenizedImages:
    return TokenizedImages(
        samples=tuple(SampleInfo(key, "coco") for key in keys),
        captions=tuple((f"a {key}", f"one {key}") for key in keys),
        tokens=VQTokens(torch.arange(len(keys) * 8).view(len(keys), 4, 2) + low, codebook),
        codebook_size=codebook_size,
    )


def test_parts_are_written_as_they_fill(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, rank=3, records_per_part=2)
    assert writer.append(images(["a", "b", "c", "d", "e"])) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-00003-00000.parquet", "part-00003-00001.parquet"]
    writer.close()
    writer.close()

    manifest = finish(tmp_path, {"made_by": "test"})
    assert manifest == Manifest.read(tmp_path)
    assert manifest.parts == {f"part-00003-{number:05d}.parquet": rows for number, rows in enumerate([2, 2, 1])}
    assert manifest.tokens.num_tokens == 4
    assert manifest.tokens.num_levels == 2
    (row,) = pq.read_table(tmp_path / "part-00003-00002.parquet").to_pylist()
    assert row == {
        "key": "e",
        "source": "coco",
        "captions": ["a e", "one e"],
        "tokens": list(range(32, 40)),
        "class_name": None,
        "seed": None,
        "scores": None,
    }


def test_what_was_written_before_a_kill_is_not_written_again(tmp_path: Path) -> None:
    killed = ShardWriter(tmp_path, records_per_part=2)
    killed.append(images(["a", "b", "c"]))  # "c" is not written yet, and is lost with the process
    (tmp_path / "part-00000-00001.parquet.tmp").write_bytes(b"half")

    writer = ShardWriter(tmp_path, records_per_part=2)
    assert ("coco", "b") in writer
    assert ("coco", "c") not in writer
    assert writer.append(images(["a", "b", "c", "d"])) == 2
    assert finish(tmp_path, {}).num_records == 4
    keys = [key for part in sorted(tmp_path.glob("*.parquet")) for key in pq.read_table(part)["key"].to_pylist()]
    assert keys == ["a", "b", "c", "d"]
    assert not list(tmp_path.glob("*.tmp"))


def test_drafts_of_killed_ranks_are_removed_in_the_end(tmp_path: Path) -> None:
    (tmp_path / "part-00007-00001.parquet.tmp").write_bytes(b"half")
    writer = ShardWriter(tmp_path)
    writer.append(images(["a"]))
    writer.close()
    finish(tmp_path, {})

    names = ["README.md", "manifest.json", "part-00000-00000.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_another_rank_reads_what_was_written(tmp_path: Path) -> None:
    first = ShardWriter(tmp_path, rank=0)
    first.append(images(["a"]))
    first.close()

    second = ShardWriter(tmp_path, rank=1)
    assert second.append(images(["a", "b"])) == 1


def test_a_manifest_is_withdrawn_when_the_folder_grows(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path)
    writer.append(images(["a"]))
    writer.close()
    finish(tmp_path, {})
    writer.append(images(["b"]))
    writer.close()

    assert not (tmp_path / "manifest.json").exists()


def test_ids_of_16_bits_survive(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path)
    writer.append(images(["a"], codebook_size=65536, low=65528))
    writer.close()

    (row,) = pq.read_table(tmp_path / "part-00000-00000.parquet").to_pylist()
    assert row["tokens"] == list(range(65528, 65536))


def test_ids_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"510.*517.*0.*511.*'tiny:1'"):
        ShardWriter(tmp_path).append(images(["a"], low=510))
    with pytest.raises(ValueError, match=r"-1.*6.*0.*511"):
        ShardWriter(tmp_path).append(images(["a"], low=-1))


def test_ids_beyond_16_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"70000.*0.*65535"):
        ShardWriter(tmp_path).append(images(["a"], codebook_size=70_000))


def test_another_codebook_is_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path)
    writer.append(images(["a"]))
    writer.close()

    with pytest.raises(ValueError, match=r"codebook='tiny:2'.*TokenFormat\(codebook='tiny:1'.*choose"):
        ShardWriter(tmp_path).append(images(["b"], codebook="tiny:2"))


def test_parts_of_two_codebooks_are_not_finished(tmp_path: Path) -> None:
    for number, codebook in enumerate(["tiny:1", "tiny:2"]):
        writer = ShardWriter(tmp_path / codebook, rank=number)
        writer.append(images(["a"], codebook=codebook))
        writer.close()
    (tmp_path / "tiny:2" / "part-00001-00000.parquet").rename(tmp_path / "tiny:1" / "part-00001-00000.parquet")

    with pytest.raises(ValueError, match=r"part-00001-00000\.parquet.*tiny:2.*format"):
        finish(tmp_path / "tiny:1", {})


def test_foreign_and_damaged_parts_are_named(tmp_path: Path) -> None:
    foreign = pa.table({"key": ["a"], "source": ["b"]})
    pq.write_table(foreign, tmp_path / "part-00000-00000.parquet")
    with pytest.raises(ValueError, match=r"not contain.*settings"):
        ShardWriter(tmp_path)
    captions = foreign.replace_schema_metadata({b"synth2_settings": b"{}"})
    pq.write_table(captions, tmp_path / "part-00000-00000.parquet")
    with pytest.raises(ValueError, match=r"not.*codebook"):
        ShardWriter(tmp_path)
    (tmp_path / "part-00000-00000.parquet").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"readable.*folder's.*manifest"):
        ShardWriter(tmp_path)


def test_nothing_written_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no part.*manifest"):
        finish(tmp_path, {})


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    writer = ShardWriter(tmp_path / "file", records_per_part=1)

    with pytest.raises(OSError, match="cannot be written"):
        writer.append(images(["a"]))


def test_parts_without_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"records_per_part=0.*1"):
        ShardWriter(tmp_path, records_per_part=0)


def test_class_names_and_seeds_are_written(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path)
    writer.append(
        replace(
            images(["a", "b"]), samples=(SampleInfo("a", "coco", "otter", 2**63 - 1), SampleInfo("b", "coco", "", 0))
        )
    )
    writer.close()

    table = pq.read_table(tmp_path / "part-00000-00000.parquet")
    assert table["class_name"].to_pylist() == ["otter", None]
    assert table["seed"].to_pylist() == [2**63 - 1, 0]


def test_scores_are_written(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path)
    writer.append(replace(images(["a", "b"]), scores=((0.5, -1.0), (2.0, 0.0))))
    writer.close()

    assert pq.read_table(tmp_path / "part-00000-00000.parquet")["scores"].to_pylist() == [[0.5, -1.0], [2.0, 0.0]]


def test_a_run_resumes_with_the_same_settings_only(tmp_path: Path) -> None:
    settings = {"model": {"steps": 18, "sizes": (1, 2)}, "data": {"seed": 0}}
    writer = ShardWriter(tmp_path)
    writer.start(settings)
    writer.append(images(["a"]))
    writer.close()
    writer.start(settings)

    again = ShardWriter(tmp_path, rank=1)
    again.start(settings)
    assert len(again) == 1
    message = (
        rf"The records in {tmp_path} were made with other settings: data.seed is 0 there and 1 in this run; "
        r"model.steps is 18 there and not set in this run. .* Restore the settings to resume, choose another folder"
    )
    with pytest.raises(ValueError, match=message):
        ShardWriter(tmp_path).start({"model": {"sizes": [1, 2]}, "data": {"seed": 1}})
    assert finish(tmp_path, {"made_by": "test"}).provenance == {
        "made_by": "test",
        "settings": {"model": {"steps": 18, "sizes": [1, 2]}, "data": {"seed": 0}},
    }


def test_parts_of_two_settings_are_not_finished(tmp_path: Path) -> None:
    writers = [ShardWriter(tmp_path, rank=rank) for rank in range(2)]
    for number, writer in enumerate(writers):
        writer.start({"seed": number})
        writer.append(images([str(number)]))
        writer.close()

    with pytest.raises(ValueError, match=r"part-00001-00000.*settings.*1"):
        finish(tmp_path, {})


def test_an_unwritable_folder_is_named_before_there_is_a_record(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"/file.*choose.*permissi"):
        ShardWriter(tmp_path / "file").start({})


def test_the_message_of_a_full_disk_names_what_is_safe_and_how_to_resume(
    tmp_path: Path, fill_disk: Callable[[str], None]
) -> None:
    writer = ShardWriter(tmp_path, records_per_part=2)
    writer.append(images(["a", "b"]))
    fill_disk("part-00000-00001.parquet")

    message = (
        r"part-00000-00001\.parquet.*written.*No space left on device.*[Ee]xpected a folder.*"
        rf"\b2 records\b.*\b1 finished parts?\b.*{tmp_path}.*\b3\b.*lost"
    )
    with pytest.raises(OSError, match=message):
        writer.append(images(["c", "d", "e"]))
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000-00000.parquet"]
    again = ShardWriter(tmp_path)
    assert again.append(images(["a", "b", "c", "d", "e"])) == 3
