import json
from pathlib import Path
from time import monotonic

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from synth2_lightning.io.parquet import write_parquet
from synth2_lightning.reports.caption_set import read_caption_set, read_caption_sets
from synth2_lightning.reports.groups import group_by_cluster
from synth2_lightning.reports.partitions import MAX_CHARACTERS
from synth2_lightning.testing import TinyTextEncoder


def test_a_folder_has_classes_manifest_and_blank_captions(tmp_path: Path) -> None:
    rows = pa.table({"caption": [" a fox ", "  ", None, "an owl"], "class_name": ["fox", "x", "x", None]})
    pq.write_table(rows, tmp_path / "captions.parquet")
    (tmp_path / "manifest.json").write_text(json.dumps({"num_written": 9}))
    captions = read_caption_set(f"mine={tmp_path}")
    assert (captions.name, captions.captions, captions.counts.class_sizes) == (
        "mine",
        ["a fox", "an owl"],
        {"fox": 1, "": 1},
    )
    assert (captions.num_blank, captions.manifest) == (2, {"num_written": 9})


def test_the_name_defaults_to_the_file_and_paths_may_contain_an_equals_sign(tmp_path: Path) -> None:
    path = tmp_path / "a=b.txt"
    path.write_text("a fox\nan owl\n")
    captions = read_caption_set(str(path))
    assert captions.name == "a=b"
    assert captions.counts.class_sizes == {"": 2}


def test_an_address_may_have_folders_of_partitions() -> None:
    with pytest.raises(FileNotFoundError, match=r"'package://synth2_lightning/date=2026/captions\.parquet'"):
        read_caption_set("package://synth2_lightning/date=2026/captions.parquet")


def test_samples_depend_on_the_seed(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("".join(f"caption {number}\n" for number in range(50)))
    captions = read_caption_set(str(tmp_path / "t.txt"))
    assert len(set(captions.sample(10, seed=1))) == 10
    assert captions.sample(10, seed=1) == captions.sample(10, seed=1) != captions.sample(10, seed=2)


def test_samples_are_independent_of_the_partitions(tmp_path: Path) -> None:
    captions = ["" if number % 7 == 0 else f"caption {number}" for number in range(3000)]
    samples = []
    for rows_of_a_group in (3000, 700, 90):
        pq.write_table(pa.table({"caption": captions}), tmp_path / "t.parquet", row_group_size=rows_of_a_group)
        samples.append(read_caption_set(str(tmp_path / "t.parquet")).sample(40, seed=5))
    assert samples[0] == samples[1] == samples[2]
    assert len(set(samples[0])) == 40
    assert "" not in samples[0]


@pytest.mark.parametrize("start", [4, 1000, -300])
def test_a_damaged_file_is_an_error(tmp_path: Path, start: int) -> None:
    path = tmp_path / "t.parquet"
    write_parquet(pa.table({"caption": [f"caption {number}" for number in range(1000)]}), path)
    damaged = bytearray(path.read_bytes())
    damaged[start : start + 200] = bytes(200)
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"t\.parquet.*Parquet.*[Ee]xpected"):
        read_caption_set(str(path))


def test_a_set_without_captions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n \n")
    with pytest.raises(ValueError, match=r"2 rows.*\bcaption"):
        read_caption_set(str(tmp_path / "t.txt"))


def test_a_missing_set_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"'real'.*'gone\.txt'"):
        read_caption_set("real=gone.txt")


def test_two_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a fox\n")
    with pytest.raises(ValueError, match=r"'t'.*real=PATH"):
        read_caption_sets([str(tmp_path / "t.txt")] * 2)


def test_long_captions_are_truncated(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a fox\n" + "a b. " * 200_000 + "\n" + "owl" * 667 + "\n")
    captions = read_caption_set(str(tmp_path / "t.txt"))
    assert captions.counts.num_long == 2
    assert max(map(len, captions.captions)) == max(map(len, captions.sample(3, seed=0))) == MAX_CHARACTERS
    assert [caption[:8] for caption in captions.captions] == ["a fox", "a b. a b", "owlowlow"]


@pytest.mark.parametrize("text", ["word " * 200_000, ".,-'" * 250_000, "a" * 10**6, "' " * 500_000])
def test_a_caption_of_a_megabyte_takes_no_longer_than_another(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("".join(f"a fox in field {number}\n" for number in range(20)) + text + "\n")
    captions = read_caption_set(str(tmp_path / "t.txt"))
    before = monotonic()
    group_by_cluster(captions, TinyTextEncoder(), 2, seed=0, console=Console(quiet=True))
    assert monotonic() - before < 30  # minutes without truncation
