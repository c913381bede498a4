import json
from pathlib import Path

import pytest

from synth2_lightning.scenes.source import ScenesSource
from synth2_lightning.sources.coco import CocoSource
from synth2_lightning.sources.photo_captions import PhotoCaptions
from synth2_lightning.types import CaptionRecord


@pytest.fixture
def coco(tmp_path: Path) -> CocoSource:
    """Return a source of three photos that do not exist, with two captions each."""
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (11, 12, 13)]
    annotations = [{"image_id": number, "caption": f"{word} {number}"} for word in "ab" for number in (11, 12, 13)]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return CocoSource(str(tmp_path / "captions.json"), str(tmp_path))


def test_captions_of_withheld_photos_are_records(coco: CocoSource) -> None:
    captions = PhotoCaptions(coco, skip=1, name="text-only")
    captions.load()

    assert captions.name == "text-only"
    assert [captions.record(index) for index in range(len(captions))] == [
        CaptionRecord("12-0", "a 12", image_id="12"),
        CaptionRecord("12-1", "b 12", image_id="12"),
        CaptionRecord("13-0", "a 13", image_id="13"),
        CaptionRecord("13-1", "b 13", image_id="13"),
    ]


def test_captions_of_an_evaluation_split_are_part_of_it(coco: CocoSource) -> None:
    assert PhotoCaptions(ScenesSource("val", 2)).is_evaluation
    assert not PhotoCaptions(ScenesSource("val", 2, seed=1)).is_evaluation
    assert not PhotoCaptions(coco).is_evaluation


def test_limit_counts_captions(coco: CocoSource) -> None:
    captions = PhotoCaptions(coco, limit=3)
    captions.load()
    assert len(captions) == 3


def test_leaving_out_more_than_there_is_is_refused(coco: CocoSource) -> None:
    with pytest.raises(ValueError, match=r"no caption.*skip"):
        PhotoCaptions(coco, skip=3).load()
    with pytest.raises(ValueError, match=r"skip=-1.*0.*skip"):
        PhotoCaptions(coco, skip=-1)
