from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synth2_lightning.sources.caption_table import CaptionTable
from synth2_lightning.types import CaptionRecord


def test_columns_are_arguments_and_numbers_may_be_keys(tmp_path: Path) -> None:
    rows = [{"id": 7, "text": "an otter swims", "name": "otter"}, {"id": 8, "text": "a fox", "name": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "captions.parquet")
    table = CaptionTable(str(tmp_path / "captions.parquet"), "text", key_column="id", class_column="name")
    table.load()

    assert [table.record(0), table.record(1)] == [
        CaptionRecord("7", "an otter swims", "otter"),
        CaptionRecord("8", "a fox"),
    ]


def test_captions_of_one_image_have_its_id(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("caption,of\na fox,7\na red fox,7\nan otter,8\n")
    table = CaptionTable(str(tmp_path / "t.csv"), image_id_column="of")
    table.load()
    assert [table.record(index).image_id for index in range(3)] == ["7", "7", "8"]


def test_without_a_key_column_the_row_is_the_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_text("caption,other\na fox,1\n,2\nan otter,3\n")
    table = CaptionTable(str(tmp_path / "t.csv"))
    table.load()

    assert [table.record(0), table.record(1)] == [
        CaptionRecord("t-000001", "a fox"),
        CaptionRecord("t-000003", "an otter"),
    ]
    assert "skip 1 empty ones: t-000002" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"caption": ["a fox", "an otter"], "id": "1"}',
            r"record 1, .*\['a fox', 'an otter'\].*'caption'; expected",
        ),
        (
            '{"caption": "a fox", "id": null}',
            "record 1, has no key under 'id'; expected one in every row. Add it, or",
        ),
        ('{"caption": "a fox"}', r"record 1, .*no column \['id'\].*\['caption'\]"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_text(line)
    with pytest.raises(ValueError, match=message):
        CaptionTable(str(tmp_path / "t.jsonl"), key_column="id").load()


def test_a_missing_table_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"captions.*'synthetic'.*'gone\.csv'"):
        CaptionTable("gone.csv").load()


def test_a_delimiter_is_an_argument(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('caption;file\n"a fox; an owl\nand a dog";1.jpg\n')
    table = CaptionTable(str(tmp_path / "t.csv"), delimiter=";")
    table.load()

    assert table.record(0).caption == "a fox; an owl\nand a dog"
