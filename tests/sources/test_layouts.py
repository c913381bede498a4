import json
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synth2_lightning.sources.layouts import Layout, find_layout

NAMES = ("a.jpg", "b.jpg")


def add_images(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        Image.new("RGB", (9, 8)).save(folder / name)


def coco(root: Path) -> None:
    """Write captions and images into different folders, beside unrelated files."""
    (root / "annotations").mkdir()
    for split, name in (("train", "a.jpg"), ("val", "b.jpg")):
        add_images(root / f"{split}2014")
        content = {"images": [{"id": 1, "file_name": name}], "annotations": [{"image_id": 1, "caption": "a dog"}]}
        (root / "annotations" / f"captions_{split}2014.json").write_text(json.dumps(content))
        boxes = {"images": content["images"], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]}
        (root / "annotations" / f"instances_{split}2014.json").write_text(json.dumps(boxes))


def karpathy(root: Path) -> None:
    add_images(root / "images")
    sentences = [{"raw": "a dog"}]
    images = [
        {"filename": name, "split": split, "sentences": sentences, "imgid": 1}
        for name, split in zip(NAMES, ("train", "val"), strict=True)
    ]
    (root / "dataset_mine.json").write_text(json.dumps({"images": images}))


def image_folder(root: Path) -> None:
    for split in ("train", "validation", "test"):
        add_images(root / split)
        row = json.dumps({"file_name": "a.jpg", "text": "a dog"})
        (root / split / "metadata.jsonl").write_text(row + "\n")


def tars(root: Path) -> None:
    add_images(root / "loose")
    (root / "loose" / "a.txt").write_text("a dog")
    for number in range(2):
        with tarfile.open(root / f"{number:05}.tar", "w") as tar:
            for name in ("a.jpg", "a.txt"):
                tar.add(root / "loose" / name, name)


def text_files(root: Path) -> None:
    for split in ("train", "val"):
        add_images(root / split)
        (root / split / "a.txt").write_text("a dog\n")


@pytest.mark.parametrize(
    ("write", "classes"),
    [
        (coco, "CocoSource"),
        (karpathy, "KarpathySource"),
        (image_folder, "TableSource"),
        (tars, "TarSource"),
        (text_files, "FolderSource"),
    ],
)
def test_splits_of_each_layout_are_found(tmp_path: Path, write: Callable[[Path], None], classes: str) -> None:
    write(tmp_path)
    layout = find_layout(str(tmp_path))
    assert layout.val is not None
    for spec in (layout.train, layout.val):
        assert spec.source.__name__ == classes
        source = spec.build()
        source.load()
        assert (len(source), source.captions(0)) == (1, ("a dog",))
        assert source.image(0).size == (9, 8)
    assert layout.train.arguments != layout.val.arguments


def only(layout: Layout) -> dict[str, object]:
    assert layout.val is None
    return layout.train.arguments


@pytest.mark.parametrize(
    ("name", "text", "delimiter"),
    [
        ("captions.csv", "id,photo,what it shows\n1,a.jpg,a brown dog\n2,b.jpg,a cat\n", None),
        ("results.csv", "photo| comment_number| what it shows\na.jpg| 0| a brown dog\nb.jpg| 0| a cat\n", "|"),
        ("captions.tsv", "photo\twhat it shows\na.jpg\ta brown dog\n", None),
        ("captions.jsonl", '{"photo": "a.jpg", "what it shows": "a brown dog", "n": 3}\n', None),
    ],
)
def test_columns_of_a_table_are_found_by_their_values(
    tmp_path: Path, name: str, text: str, delimiter: str | None
) -> None:
    add_images(tmp_path / "pictures" / "large")
    (tmp_path / name).write_text(text)
    arguments = only(find_layout(str(tmp_path / name)))
    assert (str(arguments["file_column"]), str(arguments["caption_column"]).strip()) == ("photo", "what it shows")
    assert arguments["images"] == str(tmp_path / "pictures" / "large")
    assert arguments.get("delimiter") == delimiter


def test_a_parquet_table_is_read(tmp_path: Path) -> None:
    add_images(tmp_path)
    pq.write_table(pa.table({"file": ["a.jpg"], "text": ["a dog"], "width": [9]}), tmp_path / "t.parquet")
    assert only(find_layout(str(tmp_path)))["caption_column"] == "text"


def embedded_rows(num_rows: int, **others: list[Any]) -> pa.Table:
    """Return rows as ``datasets`` writes them, with the bytes of the images."""
    images = []
    for number in range(num_rows):
        Image.new("RGB", (9, 8), (20 * number, 0, 0)).save(content := BytesIO(), "PNG")
        images.append({"bytes": content.getvalue(), "path": f"{number}.png"})
    return pa.table({"image": images, **others})


def test_images_in_a_parquet_file_are_read(tmp_path: Path) -> None:
    captions = [[f"a dog {number}", "a pet"] for number in range(10)]
    pq.write_table(embedded_rows(10, file_name=["a.png"] * 10, captions=captions), tmp_path / "photos.parquet")
    layout = find_layout(str(tmp_path / "photos.parquet"))
    assert layout.val is not None
    train, val = layout.train.build(), layout.val.build()
    for source in (train, val):
        source.load()
    assert (len(train), len(val)) == (9, 1)
    assert val.captions(0) == ("a dog 9", "a pet")
    assert val.image(0).getpixel((0, 0)) == (180, 0, 0)


def test_splits_of_parquet_files_are_found_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for part in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001", "test-00000-of-00001"):
        rows = embedded_rows(2, license=["mit mit mit mit", "mit"], sentence=["a dog runs", "a cat"])
        pq.write_table(rows, tmp_path / "data" / f"{part}.parquet")
    layout = find_layout(str(tmp_path))
    assert layout.val is not None
    train, val = layout.train.build(), layout.val.build()
    for source in (train, val):
        source.load()
    assert (len(train), len(val)) == (4, 2)
    assert val.captions(1) == ("a cat",)


def test_data_without_captions_and_without_images_are_refused(tmp_path: Path) -> None:
    add_images(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"2 images.*no captions.*COCO"):
        find_layout(str(tmp_path))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "captions.csv").write_text("file,caption\nnowhere.jpg,a dog\n")
    with pytest.raises(FileNotFoundError, match=r"captions\.csv.*'nowhere\.jpg'.*no folder"):
        find_layout(str(tmp_path / "sub"))
