from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synth2_lightning.concepts.table import TableConcepts
from synth2_lightning.types import Concept


def read(concepts: TableConcepts) -> list[Concept]:
    concepts.load()
    return [concepts.concept(index) for index in range(len(concepts))]


def test_a_text_file_has_one_name_a_line_and_wordnet_gives_the_branch(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("\ufeffred fox\n\n fire  hydrant \nflibber\n", encoding="utf-8")
    concepts = TableConcepts(str(tmp_path / "mine.txt"))
    assert read(concepts) == [
        Concept("red fox", "red fox", branch="animal"),
        Concept("fire hydrant", "fire hydrant", branch="artifact"),
        Concept("flibber", "flibber"),
    ]
    assert concepts.name == "mine"
    assert concepts.provenance()["num_excluded"] == {"empty names": 1}


def test_columns_are_arguments(tmp_path: Path) -> None:
    rows = [
        {"what": "robin", "means": "a bird", "group": "garden", "count": 7},
        {"what": "owl", "means": None, "group": None, "count": 2.5},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    concepts = TableConcepts(str(tmp_path / "t.parquet"), "what", "means", "group", "count", name="birds")
    assert read(concepts) == [
        Concept("robin", "robin", "a bird", "garden", 7.0),
        Concept("owl", "owl", "", "animal", 2.5),
    ]


def test_names_that_come_twice_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name\nowl\nrobin\nowl\n")
    with pytest.raises(ValueError, match=r"'t'.*\b1 keys?\b.*\bowl\b"):
        TableConcepts(str(tmp_path / "t.csv")).load()


@pytest.mark.parametrize("weight", ["", "many", "0", "-1", "inf", "nan"])
def test_weights_are_numbers_above_zero(tmp_path: Path, weight: str) -> None:
    (tmp_path / "t.csv").write_text(f"name,count\nowl,{weight}\n")
    message = rf"t\.csv.*record 1\b.*'{weight}'.*'count'"
    with pytest.raises(ValueError, match=message):
        TableConcepts(str(tmp_path / "t.csv"), weight_column="count").load()


def test_a_text_file_has_no_columns() -> None:
    with pytest.raises(ValueError, match=r"\['means'\].*names\.txt"):
        TableConcepts("names.txt", definition_column="means")


def test_a_missing_table_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"concepts 'gone'.*'gone\.csv'"):
        TableConcepts("gone.csv").load()


@pytest.mark.parametrize("name", ["birds.csv", "birds.txt"])
def test_a_delimiter_is_an_argument(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("name| means\nowl| a bird, of the night\n")
    concepts = TableConcepts(str(tmp_path / name), definition_column="means", delimiter="|")
    assert read(concepts) == [Concept("owl", "owl", "a bird, of the night", "animal")]
