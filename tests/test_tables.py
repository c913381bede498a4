from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synth2_lightning.tables import read_rows

ROWS = [{"id": "1", "text": "a red, red square"}, {"id": "2", "text": "b"}]


def write(folder: Path, name: str) -> Path:
    path = folder / name
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist([row | {"unread": b"x"} for row in ROWS]), path, row_group_size=1)
        case ".jsonl":
            path.write_text('{"id": "1", "text": "a red, red square"}\n{"id": "2", "text": "b"}\n')
        case ".csv":
            path.write_text('\ufeffid,text\n1,"a red, red square"\n2,b\n', encoding="utf-8")
        case _:
            path.write_text("id\ttext\n1\ta red, red square\n2\tb\n")
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet", "T.CSV"])
def test_rows_are_read_in_order(tmp_path: Path, name: str) -> None:
    assert list(read_rows(write(tmp_path, name.lower()), ["id", "text"])) == ROWS


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_a_missing_column_is_named_beside_those_there_are(tmp_path: Path, name: str) -> None:
    message = r"has no column \['caption'\]; it has \['id', 'text'.*\]\. Name the columns that the table has"
    with pytest.raises(ValueError, match=message):
        list(read_rows(write(tmp_path, name), ["caption"]))


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("id,text")
    with pytest.raises(
        ValueError, match=r"t\.parquet is no readable Parquet file .*\. Expected a whole one, or another suffix"
    ):
        list(read_rows(tmp_path / "t.parquet", ["id"]))


def test_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"t\.xlsx is no table that can be read; expected a name that ends in \.csv"):
        list(read_rows(tmp_path / "t.xlsx", ["id"]))
