from collections.abc import Sequence

import pytest

from synth2_lightning.datamodules.caption_records import CaptionRecords
from synth2_lightning.interfaces import CaptionSource
from synth2_lightning.types import CaptionRecord


class Scenes(CaptionSource):
    """Captions of the given scenes, in this order."""

    name = "scenes"

    def __init__(self, scenes: Sequence[str]) -> None:
        self.scenes = scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def record(self, index: int) -> CaptionRecord:
        return CaptionRecord(f"k{index}", f"text {index}", scene=self.scenes[index])


def test_captions_of_a_scene_are_one_record_wherever_they_are() -> None:
    records = CaptionRecords(Scenes("bacab"), by_scene=True)
    assert [records.key(number) for number in range(len(records))] == ["b", "a", "c"]
    assert [[each.key for each in records.read(number)] for number in range(3)] == [["k0", "k4"], ["k1", "k3"], ["k2"]]


def test_without_scenes_every_caption_is_a_record() -> None:
    records = CaptionRecords(Scenes("aa"))
    assert [(records.key(number), records.read(number)) for number in range(len(records))] == [
        ("k0", [CaptionRecord("k0", "text 0", scene="a")]),
        ("k1", [CaptionRecord("k1", "text 1", scene="a")]),
    ]


def test_a_caption_without_a_scene_is_refused() -> None:
    CaptionRecords(Scenes(["a", ""]))
    with pytest.raises(ValueError, match=r"'k1' of 'scenes' has no scene.*scene_column"):
        CaptionRecords(Scenes(["a", ""]), by_scene=True)
