import json
import os
import shutil
from io import BytesIO
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synth2_lightning.sources.hub import HubSource


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def write(folder: Path, captions: list[object]) -> Path:
    file = BytesIO()
    Image.new("RGB", (3, 2), "lime").save(file, "PNG")
    images = [{"bytes": file.getvalue(), "path": None}, {"bytes": b"damaged", "path": None}, None][: len(captions)]
    table = datasets.Dataset.from_dict(
        {"image": images, "text": captions},
        features=datasets.Features(
            {"image": datasets.Image(), "text": datasets.Value("string")}
            if isinstance(captions[0], str)
            else {"image": datasets.Image(), "text": datasets.List(datasets.Value("string"))}
        ),
    )
    (folder / "data").mkdir()
    table.to_parquet(folder / "data" / "train.parquet")
    return folder / "data" / "train.parquet"


def test_one_caption_per_row(tmp_path: Path) -> None:
    source = HubSource(str(write(tmp_path, ["green", "bad", "none"])), split="train", caption_column="text")
    source.load()

    assert [(source.key(index), source.captions(index)) for index in range(len(source))] == [
        ("train/0", ("green",)),
        ("train/1", ("bad",)),
        ("train/2", ("none",)),
    ]
    assert source.image(0).getpixel((0, 0)) == (0, 255, 0)
    with pytest.raises(OSError, match=r"train\.parquet\[train\]\[1.*read.*UnidentifiedImageError"):
        source.image(1)
    with pytest.raises(OSError, match=r"train\.parquet\[train\]\[2.*read.*none"):
        source.image(2)


@pytest.mark.parametrize(("part", "captions"), [("[:50%]", ["a", "b"]), ("[1:3]", ["b", "c"]), ("[-1:]", ["d"])])
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_part_of_a_split(tmp_path: Path, part: str, captions: list[str], is_folder: bool) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"image": f"{text}.png", "caption": text}) + "\n" for text in "abcd"))
    source = HubSource(str(tmp_path if is_folder else path), split=f"train{part}")
    source.load()
    assert [caption for index in range(len(source)) for caption in source.captions(index)] == captions


@pytest.mark.parametrize("split", ["train[50%:]", "train[-2:]", "test+train[1:2]"])
def test_a_row_has_the_same_key_in_every_part_of_its_split(tmp_path: Path, split: str) -> None:
    for name, size in (("train", 4), ("test", 2)):
        rows = [json.dumps({"image": "a.png", "caption": f"{name}/{number}"}) for number in range(size)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    source = HubSource(str(tmp_path), split=split)
    source.load()
    keys = [source.key(index) for index in range(len(source))]
    assert [source.captions(index) for index in range(len(source))] == [(key,) for key in keys]


def test_lists_of_captions_in_a_folder(tmp_path: Path) -> None:
    folder = write(tmp_path, [["green", "a green image"], ["bad"]]).parent
    source = HubSource(str(folder), split="train", caption_column="text", limit=1)
    source.load()

    assert len(source) == 1
    assert source.captions(0) == ("green", "a green image")


def test_images_beside_a_folder_of_files(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (3, 2), "lime").save(folder / "1.png")
    (folder / "metadata.jsonl").write_text('{"file_name": "1.png", "caption": "green"}\n')
    source = HubSource(str(folder), split="train")
    source.load()

    assert source.captions(0) == ("green",)
    assert source.image(0).size == (3, 2)


def test_unknown_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'caption'.*'image'.*'text'"):
        HubSource(str(write(tmp_path, ["green"])), split="train").load()


def test_unknown_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.xml").write_text("")
    with pytest.raises(ValueError, match=r"data\.xml.*kind.*'\.arrow'"):
        HubSource(str(tmp_path / "data.xml"), split="train").load()


def test_missing_dataset_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"'no/such'.*'hub'.*neither"):
        HubSource("no/such", split="train").load()


@pytest.mark.parametrize(
    ("captions", "column", "expected"),
    [
        ([{"raw": "a dog", "imgid": 1}], "text.raw", ("a dog",)),
        ([[{"raw": "a dog", "imgid": 1}, {"raw": "a cat", "imgid": 1}]], "text.raw", ("a dog", "a cat")),
        ([{"raw": ["a dog", "a cat"]}], "text.raw", ("a dog", "a cat")),
        ([[{"raw": "a dog"}, None, {"raw": None}]], "text.raw", ("a dog",)),
        ([["a dog", None, "  ", "a cat"]], "text", ("a dog", "a cat")),
    ],
)
def test_records_and_lists_with_holes(
    tmp_path: Path, captions: list[object], column: str, expected: tuple[str, ...]
) -> None:
    images = [{"bytes": b"", "path": None}] * len(captions)
    pq.write_table(pa.table({"image": images, "text": captions}), tmp_path / "t.parquet")
    source = HubSource(str(tmp_path / "t.parquet"), split="train", caption_column=column)
    source.load()

    assert [source.captions(index) for index in range(len(source))] == [expected]


def test_a_column_with_a_dot_in_its_name_is_a_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [{"bytes": b""}], "a.b": ["a dog"]}), tmp_path / "t.parquet")
    source = HubSource(str(tmp_path / "t.parquet"), split="train", caption_column="a.b")
    source.load()

    assert source.captions(0) == ("a dog",)


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ([{"raw": "a dog", "imgid": 1}], r"row 0, has .* one of \['raw'\], as in caption_column='text\.raw'"),
        ([["a dog"], [None, 7.0]], r"row 1, .*7\.0.*'text'|\btext\b.* from string to number in row 1"),
        ([7], r"row 0, .*\b7\b.*'text'"),
    ],
)
def test_what_is_no_caption_is_named_by_row(tmp_path: Path, captions: list[object], message: str) -> None:
    rows = "".join(json.dumps({"image": "1.png", "text": caption}) + "\n" for caption in captions)
    (tmp_path / "t.jsonl").write_text(rows)
    with pytest.raises(ValueError, match=message):
        HubSource(str(tmp_path / "t.jsonl"), split="train", caption_column="text").load()


def test_unknown_splits_are_named_beside_those_there_are(tmp_path: Path) -> None:
    folder = write(tmp_path, ["green"]).parent
    with pytest.raises(ValueError, match=r"'val'.*data'.*'train'"):
        HubSource(str(folder), split="val", caption_column="text").load()


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_file_written_again_with_its_name_and_time_is_read_again(tmp_path: Path, is_folder: bool) -> None:
    for text in ("first", "other"):
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        path = write(tmp_path, [text])
        os.utime(path, (1.7e9, 1.7e9))
        source = HubSource(str(path.parent if is_folder else path), split="train", caption_column="text")
        source.load()
        assert source.captions(0) == (text,)
