import json
import logging
from pathlib import Path

import pytest
from PIL import Image

from synth2_lightning.sources.coco import CocoSource


def write(folder: Path, content: object) -> CocoSource:
    (folder / "captions.json").write_text(content if isinstance(content, str) else json.dumps(content))
    (folder / "images").mkdir()
    Image.new("RGB", (4, 4), "red").save(folder / "images" / "1.png")
    return CocoSource(str(folder / "captions.json"), str(folder / "images"), name="tiny")


def test_images_are_joined_with_their_annotations(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write(
        tmp_path,
        {
            "images": [{"id": 1, "file_name": "1.png"}, {"id": 2}, {"id": 3, "file_name": "3.png"}],
            "annotations": [
                {"image_id": 1, "caption": "a"},
                {"image_id": 3, "caption": "c"},
                {"image_id": 1, "caption": "b"},
                {"image_id": 2, "caption": "d"},
                {"image_id": 9, "caption": "e"},
                {"image_id": 1, "caption": None},
            ],
        },
    )
    with caplog.at_level(logging.WARNING):
        source.load()

    assert [(source.key(index), source.captions(index)) for index in range(len(source))] == [
        ("1", ("a", "b")),
        ("3", ("c",)),
    ]
    assert source.image(0).size == (4, 4)
    assert "1 annotations of unknown images (the first: image_id 9)" in caplog.text
    assert "1 captions without an image (the first: 2)" in caplog.text
    with pytest.raises(OSError, match=r"3\.png.*read.*FileNotFoundError"):
        source.image(1)


def test_same_image_twice_is_refused(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "1.png"}, {"id": 1, "file_name": "2.png"}]

    with pytest.raises(ValueError, match=r"two.*key '1'"):
        write(tmp_path, {"images": images, "annotations": [{"image_id": 1, "caption": "a"}]}).load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"captions\.json is not valid JSON .*; expected COCO captions: "),
        ([1], r"captions\.json has no list of objects under 'images'; expected COCO captions: "),
        ({"images": []}, "has no list of objects under 'annotations'"),
        ({"images": [1], "annotations": []}, "has no list of objects under 'images'"),
        ({"images": [{"file_name": "1.png"}], "annotations": []}, "has a record without 'id'; expected COCO"),
        ({"images": [], "annotations": [{"caption": "a"}]}, "has a record without 'image_id'"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path, content).load()


def test_missing_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"annotations.*'coco'.*'gone\.json'"):
        CocoSource("gone.json", str(tmp_path)).load()
    (tmp_path / "captions.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"images.*'coco'.*'gone'"):
        CocoSource(str(tmp_path / "captions.json"), "gone").load()
