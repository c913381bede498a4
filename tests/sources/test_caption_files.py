import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synth2_lightning.sources.caption_files import read_caption_rows


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_every_kind_of_file_gives_its_captions_with_what_stands_beside_them(tmp_path: Path) -> None:
    annotations = {"annotations": [{"image_id": 7, "caption": "a fox"}, {"caption": "an owl", "id": 2}]}
    pq.write_table(pa.table({"caption": ["a fox", "an owl"], "seed": [1, 2]}), tmp_path / "captions.parquet")
    files = {
        "seed": tmp_path,
        "image_id": write(tmp_path / "coco.json", json.dumps(annotations)),
        "class_name": write(tmp_path / "t.csv", "caption,class_name\na fox,fox\nan owl,\n"),
        "score": write(tmp_path / "t.jsonl", '{"caption": "a fox"}\n{"caption": "an owl", "score": 2.5}\n'),
        "caption": write(tmp_path / "t.txt", "a fox\nan owl\n"),
    }
    for column, path in files.items():
        table = read_caption_rows(path)
        assert table["caption"].to_pylist() == ["a fox", "an owl"]
        assert column in table.column_names


def test_a_field_of_several_kinds_is_kept_as_text(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", '{"caption": "a fox", "x": "1"}\n{"caption": "an owl", "x": [1]}\n')
    assert read_caption_rows(path)["x"].to_pylist() == ["1", "[1]"]


def test_a_folder_without_captions_is_no_finished_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"captions\.parquet.*finished.*caption"):
        read_caption_rows(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.json", "{}", "has no list of objects under 'annotations'; expected COCO captions"),
        ("t.json", '{"annotations": [{"id": 1}]}', r"has no captions; its columns are \['id'\]. Expected a column"),
        ("t.jsonl", '{"caption": 3}', r"t\.jsonl, record 1, .*\b3\b.*'caption'"),
        ("t.csv", "text\na fox\n", r"no column \['caption'\].*\['text'\]"),
        ("t.parquet", "no table", r"t\.parquet.*readable Parquet file"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_caption_rows(write(tmp_path / name, text))
