import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from synth2_lightning.reports.commands import select_by_class, select_by_cluster
from synth2_lightning.reports.groups import Groups
from synth2_lightning.reports.selection import fill_groups, select_rows
from synth2_lightning.testing import TinyTextEncoder

GROUPS = ["dog"] * 50 + ["cat"] * 20 + ["fox"] * 3
GROUPED = Groups(["dog", "cat", "fox"], np.repeat(np.arange(3, dtype=np.int32), [50, 20, 3]))


def write_set(folder: Path) -> str:
    folder.mkdir()
    captions = [f"a {name} number {number}" for number, name in enumerate(GROUPS)]
    rows = pa.table({"key": [str(row) for row in range(len(GROUPS))], "caption": captions, "class_name": GROUPS})
    pq.write_table(rows, folder / "captions.parquet")
    return str(folder)


@pytest.mark.parametrize(
    ("sizes", "num", "quotas"),
    [([50, 20, 3], 30, [14, 13, 3]), ([5, 5, 5], 15, [5, 5, 5]), ([4, 4], 1, [1, 0]), ([7], 3, [3])],
)
def test_groups_are_filled_equally_up_to_their_sizes(sizes: list[int], num: int, quotas: list[int]) -> None:
    assert fill_groups(sizes, num) == quotas


def test_selections_are_balanced_or_restricted_to_the_largest_groups() -> None:
    even = select_rows(GROUPED, 30)
    assert even.sizes_after == {"dog": 14, "cat": 13, "fox": 3}
    assert even.balance_after.entropy > even.balance_before.entropy
    assert [GROUPS[row] for row in even.rows].count("cat") == 13
    assert select_rows(GROUPED, 30, num_groups=1).sizes_after == {"dog": 30, "cat": 0, "fox": 0}


def test_rows_depend_on_the_seed_and_are_sorted() -> None:
    first, again, other = (select_rows(GROUPED, 20, seed=seed).rows.tolist() for seed in (0, 0, 1))
    assert first == again == sorted(first)
    assert first != other


def test_rows_without_a_group_are_skipped_and_larger_selections_are_supersets() -> None:
    groups = Groups(["dog", "cat"], np.arange(100_000, dtype=np.int32) % 3 - 1)
    small, large = (set(select_rows(groups, num, seed=4).rows.tolist()) for num in (50, 5000))
    assert small < large
    assert not any(row % 3 == 0 for row in large)
    assert len({row for row in large if row % 3 == 1}) == 2500


def test_too_many_captions_or_groups_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\b74\b.*\b3 groups\b.*\b73\b"):
        select_rows(GROUPED, 74)
    with pytest.raises(ValueError, match=r"\b60\b.*\b1 groups?\b.*\b50\b"):
        select_rows(GROUPED, 60, num_groups=1)
    with pytest.raises(ValueError, match=r"\b4 of 3 groups\b"):
        select_rows(GROUPED, 5, num_groups=4)


def test_a_selection_by_class_is_a_caption_set_with_a_manifest(tmp_path: Path) -> None:
    console = Console(record=True, quiet=False, width=100)
    select_by_class(write_set(tmp_path / "set"), tmp_path / "even", num=30, seed=3, console=console)
    rows = pq.read_table(tmp_path / "even" / "captions.parquet")
    assert rows.column_names == ["key", "caption", "class_name"]
    keys = [int(key) for key in rows["key"].to_pylist()]
    assert keys == sorted(keys)
    assert len(keys) == 30
    manifest = json.loads((tmp_path / "even" / "manifest.json").read_text())
    assert "path: captions.parquet" in (tmp_path / "even" / "README.md").read_text()  # for datasets.load_dataset
    assert manifest["selected_by"] == {"groups": "class", "num_groups": None, "seed": 3}
    assert manifest["groups"][0] == {"name": "dog", "num_before": 50, "num_after": 14}
    assert manifest["balance_after"]["entropy"] > manifest["balance_before"]["entropy"]
    assert "entropy in bits" in console.export_text()


def test_a_selection_by_cluster_names_its_clusters(tmp_path: Path) -> None:
    location = write_set(tmp_path / "set")
    select_by_cluster(location, tmp_path / "one", 5, TinyTextEncoder(), 3, num_groups=1, console=Console(quiet=True))
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert [group["num_after"] for group in manifest["groups"]] == [5, 0, 0]
    assert manifest["groups"][0]["name"].startswith("1 ")


def test_an_existing_caption_set_is_not_overwritten(tmp_path: Path) -> None:
    location = write_set(tmp_path / "set")
    with pytest.raises(FileExistsError, match=r"caption set.*folder"):
        select_by_class(location, tmp_path / "set", num=3)


def test_selection_by_class_requires_class_names(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a fox\nan owl\n")
    with pytest.raises(ValueError, match=r"'t'.*'class_name'.*clusters"):
        select_by_class(str(tmp_path / "t.txt"), tmp_path / "out", num=1)
