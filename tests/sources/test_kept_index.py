import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synth2_lightning.io.index_files import list_indexes
from synth2_lightning.sources import kept_index
from synth2_lightning.sources.caption_table import CaptionTable
from synth2_lightning.sources.coco import CocoSource
from synth2_lightning.sources.karpathy import KarpathySource
from synth2_lightning.sources.table import TableSource
from synth2_lightning.sources.vqa import VQASource

pytestmark = pytest.mark.usefixtures("own_cache")
Source = CocoSource | KarpathySource | TableSource | VQASource | CaptionTable
IMAGES = [{"id": number, "file_name": f"{number}.jpg"} for number in range(3)]
CAPTIONS = [
    {"image_id": number, "caption": text} for number, text in ((0, "a fox"), (1, " "), (1, "a d\ufffdg"), (7, "x"))
]
CONTENT = {
    "coco.json": json.dumps({"images": IMAGES, "annotations": CAPTIONS}),
    "karpathy.json": json.dumps(
        {"images": [{"filename": "0.jpg", "filepath": "", "split": "train", "sentences": [{"raw": "a fox"}]}]}
    ),
    "table.csv": "file_name,caption\n0.jpg,a fox\n0.jpg,a red fox\n,lost\n",
    "questions.json": json.dumps({"questions": [{"question_id": 1, "image_id": 2, "question": "What?"}]}),
    "answers.json": json.dumps({"annotations": [{"question_id": 1, "answers": [{"answer": "a fox"}]}]}),
}
MAKE: dict[str, Callable[[], Source]] = {
    "coco.json": lambda: CocoSource("coco.json", "images"),
    "karpathy.json": lambda: KarpathySource("karpathy.json", "images", ["train"]),
    "table.csv": lambda: TableSource("table.csv", "images"),
    "questions.json": lambda: VQASource("questions.json", "answers.json", "images"),
    "captions": lambda: CaptionTable("table.csv", max_empty_captions=0),
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for name, content in CONTENT.items():
        Path(name).write_text(content)
    monkeypatch.setattr(kept_index, "_MIN_BYTES_TO_KEEP", 1)


def forbid(*_: object) -> None:
    raise AssertionError("it is parsed again")


def read(source: Source) -> list[Any]:
    source.load()
    if isinstance(source, CaptionTable):
        return [source.record(index) for index in range(len(source))]
    return [
        (source.key(index), source.captions(index), source.prompt(index), source.image_fingerprint(index))
        for index in range(len(source))
    ]


@pytest.mark.parametrize("name", MAKE)
def test_files_are_parsed_once(name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    expected = read(MAKE[name]())
    warnings = caplog.messages.copy()
    caplog.clear()
    class_ = type(MAKE[name]())
    method = "read_captions" if class_ is CaptionTable else "read_index"
    with monkeypatch.context() as patch:
        patch.setattr(class_, method, forbid)
        assert read(MAKE[name]()) == expected
    assert caplog.messages == warnings


def test_small_files_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_index, "_MIN_BYTES_TO_KEEP", 10**6)
    read(MAKE["coco.json"]())
    assert list_indexes() == []


def test_other_settings_and_files_are_other_indexes() -> None:
    read(CocoSource("coco.json", "images"))
    assert len(read(CocoSource("coco.json", "images", limit=1))) == 1
    assert len(read(CocoSource("coco.json", "images", name="other"))) == 2
    assert len(list_indexes()) == 3
    changed = CONTENT["coco.json"].replace("a fox", "a cat")
    Path("coco.json").write_text(changed)
    os.utime("coco.json", ns=(1, 1))
    source = CocoSource("coco.json", "images")
    source.load()
    assert source.captions(0) == ("a cat",)


def test_the_folder_of_images_is_looked_for() -> None:
    read(MAKE["coco.json"]())
    Path("images").rmdir()
    with pytest.raises(FileNotFoundError, match=r"images folder of source 'coco'"):
        read(MAKE["coco.json"]())


def test_classes_of_users_are_read_each_time() -> None:
    class Upper(CocoSource):
        def name_image(self, image: dict[str, object]) -> str:
            return f"{image['id']}!"

    assert [entry[0] for entry in read(Upper("coco.json", "images"))] == ["0!", "1!"]
    assert list_indexes() == []


def test_a_missing_caption_is_an_error_each_time() -> None:
    Path("table.csv").write_text("file_name,caption\n0.jpg,\n1.jpg,a fox\n")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"1 captions of 'synthetic' are empty.*max_empty_captions=0"):
            CaptionTable("table.csv", max_empty_captions=0).load()
    assert list_indexes() == []
