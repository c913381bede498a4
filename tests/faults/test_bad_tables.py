"""Bad tables, texts and tars are refused by a message that names the place, or skipped, counted and named.

Skipped records must not change the good captions beside them.
"""

import json
import os
import re
import tarfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drivers import load, png, read_refusal, table, write

from synth2_lightning.concepts.prompts import PromptTemplate
from synth2_lightning.concepts.table import TableConcepts
from synth2_lightning.sources.caption_files import read_caption_rows
from synth2_lightning.sources.coco import CocoSource
from synth2_lightning.sources.folder import FolderSource
from synth2_lightning.sources.hub import HubSource
from synth2_lightning.sources.karpathy import KarpathySource
from synth2_lightning.sources.table import TableSource
from synth2_lightning.sources.webdataset import TarSource

GOOD = "a red circle"
RECORD = {"raw": GOOD, "imgid": 7}
HALF = '{"caption": "a red circle \\ud83d"}'  # half of an emoji's surrogate pair
NOT_UTF8 = os.fsdecode(b"bad-caf\xe9")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("SYNTH2_CACHE", str(tmp_path / "cache"))


def parquet(folder: Path, captions: Any) -> list[str]:
    pq.write_table(pa.table({"caption": captions}), folder / "bad.parquet")
    return table(folder, "bad.parquet", (folder / "bad.parquet").read_bytes())


def photos(folder: Path, name: str, content: Any, **columns: Any) -> list[str]:
    return load(TableSource(write(folder, name, content), str(folder), **columns))


def rows(folder: Path, name: str, content: Any) -> list[str]:
    captions: list[str] = read_caption_rows(Path(write(folder, name, content)))["caption"].to_pylist()
    return captions


def concepts(folder: Path, content: Any) -> None:
    TableConcepts(write(folder, "bad.jsonl", content)).load()


def coco(folder: Path, caption: Any) -> list[str]:
    images = [{"id": number, "file_name": f"{number}.png"} for number in (1, 2)]
    annotations = [{"image_id": 1, "caption": GOOD}, {"image_id": 2, "caption": caption}]
    return load(CocoSource(write(folder, "bad.json", {"images": images, "annotations": annotations}), str(folder)))


def karpathy(folder: Path, raw: Any) -> list[str]:
    records = [{"filename": "1.png", "split": "val", "sentences": [{"raw": GOOD}, {"raw": raw}]}]
    return load(KarpathySource(write(folder, "bad.json", {"images": records}), str(folder), ["val"]))


def hub(folder: Path, captions: list[Any], split: str = "train", column: str = "caption") -> list[str]:
    images = [{"bytes": png(), "path": None}] * len(captions)
    (folder / "bad").mkdir()
    pq.write_table(pa.table({"image": images, "caption": captions}), folder / "bad" / "train.parquet")
    return load(HubSource(str(folder / "bad"), split, caption_column=column))


def hub_file(folder: Path, name: str, content: str) -> list[str]:
    return load(HubSource(write(folder, name, content), "train"))


def tar(folder: Path, members: Mapping[str, bytes] | list[tuple[str, bytes]], pattern: str = "bad.tar") -> list[str]:
    with tarfile.open(folder / "bad.tar", "w") as file:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, BytesIO(content))
    return load(TarSource(str(folder / pattern)))


def tar_with(folder: Path, members: Mapping[str, bytes]) -> list[str]:
    """Return the captions of a tar with a good sample and these members."""
    return tar(folder, {"0.png": png(), "0.txt": GOOD.encode()} | dict(members))


def folder_with(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    """Return the captions of a folder with a good sample and these files."""
    for name, content in ({"0.png": png(), "0.txt": GOOD.encode()} | dict(files)).items():
        write(folder / "images", name, content)
    return load(FolderSource(str(folder / "images")))


SWALLOWING = 'caption,file\n"red dress on a woman,1.jpg\na blue boat,2.jpg\na dog says woof",3.jpg\na kite,4.jpg\n'
SWALLOWING_LAST = 'file,caption\n1.jpg,"red dress on a woman\n2.jpg,a blue boat\n3.jpg,woof"\n4.jpg,a kite\n'
MAC = b"\0\5\26\7\0\2\0\0Mac OS X        \260ATTR"

KINDS: dict[str, Callable[[Path], object]] = {
    "CSV: a quotation mark that swallows rows": lambda folder: table(folder, "bad.csv", SWALLOWING),
    "CSV: a quotation mark that swallows rows, in the last column": lambda folder: table(
        folder, "bad.csv", SWALLOWING_LAST
    ),
    "CSV: a quotation mark that swallows rows, with spaces after commas": lambda folder: table(
        folder, "bad.csv", SWALLOWING.replace(",", ", ")
    ),
    "CSV: a quotation mark that swallows rows, blank ones between": lambda folder: table(
        folder, "bad.csv", SWALLOWING.replace("\n", "\n\n")
    ),
    "CSV: a quotation mark that swallows rows of one column": lambda folder: table(
        folder, "bad.csv", 'caption\n"red dress\na blue boat\na dog says woof"\na kite\n'
    ),
    "CSV: a quotation mark that swallows a column": lambda folder: table(
        folder, "bad.csv", 'caption,class\n"red dress,says woof"\n'
    ),
    "CSV: a quotation mark that swallows half of a row": lambda folder: table(
        folder, "bad.csv", 'caption,file,class\na dog,1.jpg,dog\n"red dress\non a woman,1.jpg,dress"\n'
    ),
    "CSV: a quotation mark that closes inside of a field": lambda folder: table(
        folder, "bad.csv", 'caption,file\n"red" dress,1.jpg\n'
    ),
    "CSV: a quotation mark in the last line": lambda folder: table(folder, "bad.csv", 'file,caption\n1.jpg,"a dog'),
    "CSV: two columns of one name": lambda folder: table(folder, "bad.csv", "caption,caption\na dog,a cat\n"),
    "CSV: a delimiter of two characters": lambda folder: table(folder, "bad.csv", "caption\n", delimiter="| "),
    "CSV: another delimiter": lambda folder: table(folder, "bad.csv", "file| caption\n1.jpg| a dog\n"),
    "CSV of photos: a quotation mark that swallows rows": lambda folder: photos(
        folder, "bad.csv", SWALLOWING, file_column="file"
    ),
    "caption set of CSV: a quotation mark that swallows rows": lambda folder: rows(folder, "bad.csv", SWALLOWING),
    "CSV of a Hub data set: a quotation mark that swallows rows": lambda folder: hub_file(
        folder, "bad.csv", SWALLOWING.replace("file", "image")
    ),
    "CSV: nothing": lambda folder: table(folder, "bad.csv", ""),
    "CSV: blank lines": lambda folder: table(folder, "bad.csv", "\n\r\n"),
    "CSV: two tables put together": lambda folder: table(
        folder, "bad.csv", "file,caption\n1.jpg,a dog\nfile,caption\n2.jpg,a cat\n"
    ),
    "TSV: two tables put together, each with its mark": lambda folder: table(
        folder, "bad.tsv", "\ufefffile\tcaption\r\n1.jpg\ta dog\r\n\ufefffile\tcaption\r\n2.jpg\ta cat\r\n"
    ),
    "CSV: a carriage return in a text": lambda folder: table(folder, "bad.csv", "caption,file\na dog\rruns,1.jpg\n"),
    "CSV: a carriage return in the last column": lambda folder: table(
        folder, "bad.csv", "file,caption\r\n1.jpg,a dog\rruns\r\n"
    ),
    "TSV: a carriage return in a text": lambda folder: table(folder, "bad.tsv", "file\tcaption\n1.jpg\ta dog\rruns\n"),
    "TSV: a field of several lines": lambda folder: table(folder, "bad.tsv", 'caption\tfile\n"a red\ndress"\t1.jpg\n'),
    "TSV: a field of several lines in one column": lambda folder: table(folder, "bad.tsv", 'caption\n"a red\ndress"\n'),
    "TSV: more fields than columns": lambda folder: table(folder, "bad.tsv", "caption\na red\tdress\n"),
    "text: UTF-16, cut": lambda folder: table(folder, "bad.csv", f"caption\n{GOOD}\n".encode("utf-16")[:-1]),
    "JSONL: UTF-16 without its mark": lambda folder: table(
        folder, "bad.jsonl", json.dumps({"caption": "é"}, ensure_ascii=False).encode("utf-16-le")
    ),
    "JSONL: a caption that is a number": lambda folder: table(folder, "bad.jsonl", {"caption": 7}),
    "JSONL: a caption that is true": lambda folder: table(folder, "bad.jsonl", {"caption": True}),
    "JSONL: a caption that is a record": lambda folder: table(folder, "bad.jsonl", {"caption": RECORD}),
    "JSONL: a key that is true": lambda folder: table(
        folder, "bad.jsonl", {"caption": GOOD, "id": True}, key_column="id"
    ),
    "JSONL: a class that is a record": lambda folder: table(
        folder, "bad.jsonl", {"caption": GOOD, "of": {}}, class_column="of"
    ),
    "JSONL of photos: a file name that is a number": lambda folder: photos(
        folder, "bad.jsonl", {"file_name": 1, "caption": GOOD}
    ),
    "JSONL of concepts: a name that is a record": lambda folder: concepts(folder, {"name": {"en": "dog"}}),
    "caption set: a record among texts": lambda folder: rows(
        folder, "bad.jsonl", f'{{"caption": "{GOOD}"}}\n{json.dumps({"caption": RECORD})}\n'
    ),
    "caption set of COCO: a number among texts": lambda folder: rows(
        folder, "bad.json", {"annotations": [{"caption": GOOD}, {"caption": 7}]}
    ),
    "Parquet: captions that are numbers": lambda folder: parquet(folder, [1.5, float("nan")]),
    "Parquet: captions that are bytes": lambda folder: parquet(folder, [b"a dog"]),
    "Parquet: captions that are records": lambda folder: parquet(folder, [RECORD]),
    "COCO: a caption that is a list": lambda folder: coco(folder, [GOOD]),
    "Karpathy: a sentence that is a number": lambda folder: karpathy(folder, 7),
    "Hub: captions that are records": lambda folder: hub(folder, [RECORD]),
    "Hub: captions that are lists of records": lambda folder: hub(folder, [[RECORD]]),
    "Hub: captions that are lists of lists": lambda folder: hub(folder, [[[GOOD]]]),
    "Hub: captions that are numbers": lambda folder: hub(folder, [7]),
    "Hub: captions that are bytes": lambda folder: hub(folder, [b"a dog"]),
    "Hub: records without that field": lambda folder: hub(folder, [RECORD], column="caption.text"),
    "Hub: a field of texts": lambda folder: hub(folder, [GOOD], column="caption.raw"),
    "Hub: a field that holds numbers": lambda folder: hub(folder, [RECORD], column="caption.imgid"),
    "Hub: an unknown split": lambda folder: hub(folder, [GOOD], split="val"),
    "Hub: a slice that is none": lambda folder: hub(folder, [GOOD], split="train[1:oops]"),
    "tar: several captions in JSON": lambda folder: tar(folder, {"0.json": json.dumps({"caption": [GOOD]}).encode()}),
    "tar: a number in JSON": lambda folder: tar(folder, {"0.json": b'{"caption": 7}'}),
    "tars: missing ones of a range": lambda folder: tar(folder, {"0.png": png()}, "bad-{00000..00012}.tar"),
    "tars: a range that descends": lambda folder: tar(folder, {"0.png": png()}, "bad-{7..3}.tar"),
    "tars: a range that is absurdly long": lambda folder: tar(folder, {"0.png": png()}, "bad-{0..9}{0..999999}.tar"),
    "JSONL: half a character in UTF-8": lambda folder: table(folder, "bad.jsonl", b'{"caption": "a \xed\xa0\xbd"}'),
    "CSV beside the images of a Hub data set: a quotation mark that swallows rows": lambda folder: load(
        HubSource(str(Path(write(folder, "bad/metadata.csv", SWALLOWING)).parent), "train")
    ),
    "TSV of a Hub data set: a quotation mark that swallows rows": lambda folder: load(
        HubSource(str(Path(write(folder, "bad/a.tsv", SWALLOWING.replace(",", "\t"))).parent), "train")
    ),
    "Hub: images that are numbers": lambda folder: hub_file(
        folder, "bad.jsonl", f'{{"image": 7, "caption": "{GOOD}"}}'
    ),
    "prompt: half a character": lambda folder: PromptTemplate("bad", 1, "Caption a photo of a {name} \ud83d"),
}  # fmt: skip

LEFT_OUT: dict[str, Callable[[Path], list[str]]] = {
    "Hub: a list with a missing caption": lambda folder: hub(folder, [[GOOD, None]]),
    "Hub: a blank caption among others": lambda folder: hub(folder, [[" \n", GOOD]]),
    "Hub: a row without captions": lambda folder: hub(folder, [[GOOD], None]),
    "Hub: records with a missing caption": lambda folder: hub(folder, [[RECORD, None]], column="caption.raw"),
    "tar: files that macOS leaves": lambda folder: tar_with(folder, {"._0.png": MAC, "._0.txt": MAC}),
    "tar: a folder that macOS leaves": lambda folder: tar_with(folder, {"__MACOSX/1.png": MAC, "__MACOSX/1.txt": MAC}),
    "tar: an image of several suffixes": lambda folder: tar_with(folder, {"0.seg.png": png()}),
    "tar: a caption of several suffixes": lambda folder: tar_with(folder, {"1.png": png(), "1.outputs.txt": b"a fox"}),
    "tar: other members": lambda folder: tar_with(folder, {"0.npy": b"0"}),
    "tar: an image twice": lambda folder: tar(
        folder, [("0.png", png()), ("0.txt", GOOD.encode()), ("0.png", b""), ("0.txt", b"a fox")]
    ),
    "tar: two images of one key": lambda folder: tar_with(folder, {"0.jpg": b""}),
    "tar: a name that is not in UTF-8": lambda folder: tar_with(
        folder, {f"{NOT_UTF8}.png": png(), f"{NOT_UTF8}.txt": b"a fox"}
    ),
    "tar: half a character": lambda folder: tar(folder, {"0.png": png(), "0.json": HALF.encode()}),
    "folder: files that macOS leaves": lambda folder: folder_with(folder, {"._0.png": MAC, "._0.txt": MAC}),
    "folder: a folder that macOS leaves": lambda folder: folder_with(folder, {"__MACOSX/1.png": MAC}),
    "folder: hidden images": lambda folder: folder_with(folder, {".thumbnails/1.png": MAC, ".thumbnails/1.txt": MAC}),
    "folder: a text without an image": lambda folder: folder_with(folder, {"README.txt": b"read this"}),
    "folder: two texts of an image": lambda folder: folder_with(folder, {"0.TXT": GOOD.encode()}),
    "folder: a name that is not in UTF-8": lambda folder: folder_with(
        folder, {f"{NOT_UTF8}.png": png(), f"{NOT_UTF8}.txt": b"a fox"}
    ),
    "CSV of photos: a file that macOS leaves": lambda folder: photos(
        folder, "bad.csv", f"file_name,caption\n._1.png,a fox\n1.png,{GOOD}\n"
    ),
    "CSV of photos: a row that is too short": lambda folder: photos(
        folder,
        "bad.csv",
        f"image_name| number| comment\n1.jpg| 0| {GOOD} \n2.jpg| 4   A dog runs .\n",
        file_column="image_name",
        caption_column="comment",
        delimiter="|",
    ),
    "JSONL: half a character": lambda folder: table(folder, "bad.jsonl", HALF),
    "caption set: half a character": lambda folder: rows(folder, "bad.jsonl", HALF),
    "caption set of COCO: half a character": lambda folder: rows(folder, "bad.json", f'{{"annotations": [{HALF}]}}'),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable")
@pytest.mark.parametrize("kind", KINDS)
def test_refused_input_is_named_in_a_message(kind: str, tmp_path: Path) -> None:
    message = read_refusal(KINDS[kind], tmp_path)
    assert re.search(r"\bbad", message), message


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_what_is_left_out_is_counted_and_named(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    captions = LEFT_OUT[kind](tmp_path)

    if "half a character" in kind:
        assert captions == [f"{GOOD} \ufffd"]
        assert re.search(r"\b1 captions?\b.*U\+FFFD.*[01]\)", caplog.text)
    else:
        assert captions == [GOOD], "other captions than the good ones were used"
        assert re.search(r"\b[12] .*first: ", caplog.text)
