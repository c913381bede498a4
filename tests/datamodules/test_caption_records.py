from collections.abc import Sequence

import pytest

from synth2_lightning.datamodules.caption_records import CaptionRecords
from synth2_lightning.interfaces import CaptionSource
from synth2_lightning.types import CaptionRecord


class Captions(CaptionSource):
    """Captions of the given images, in this order."""

    name = "captions"

    def __init__(self, images: Sequence[str]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def record(self, index: int) -> CaptionRecord:
        return CaptionRecord(f"k{index}", f"text {index}", image_id=self.images[index])


def test_captions_of_an_image_are_one_record_wherever_they_are() -> None:
    records = CaptionRecords(Captions("bacab"), by_image=True)
    assert [records.key(number) for number in range(len(records))] == ["b", "a", "c"]
    assert [[each.key for each in records.read(number)] for number in range(3)] == [["k0", "k4"], ["k1", "k3"], ["k2"]]


def test_by_default_every_caption_is_a_record() -> None:
    records = CaptionRecords(Captions("aa"))
    assert [(records.key(number), records.read(number)) for number in range(len(records))] == [
        ("k0", [CaptionRecord("k0", "text 0", image_id="a")]),
        ("k1", [CaptionRecord("k1", "text 1", image_id="a")]),
    ]


def test_a_caption_without_an_image_id_is_refused() -> None:
    CaptionRecords(Captions(["a", ""]))
    with pytest.raises(ValueError, match=r"'k1' of 'captions' has no image id.*image_id_column"):
        CaptionRecords(Captions(["a", ""]), by_image=True)
