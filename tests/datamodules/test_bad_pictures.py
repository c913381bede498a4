import logging

import pytest

from synth2_lightning.datamodules.bad_pictures import BadPictures


def test_each_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    bad = BadPictures(limit=2)
    with caplog.at_level(logging.WARNING):
        bad.add(["coco/1: cut"])
        bad.add(["coco/1: cut", "coco/2: cut"])

    assert [record.message for record in caplog.records] == [
        "Another picture takes the place of coco/1: cut",
        "Another picture takes the place of coco/2: cut",
    ]


def test_too_many_are_refused_with_names() -> None:
    message = (
        "3 pictures could not be read, and max_bad_pictures=2 puts up with no more than 2: a; b; c. Repair them, take "
        "them out of the index, or raise max_bad_pictures."
    )
    bad = BadPictures(limit=2)
    bad.add(["a", "b"])
    with pytest.raises(ValueError, match=message):
        bad.add(["c"])
    with pytest.raises(ValueError, match=r"7 pictures .* 0; 1; 2; 3; 4; and others\. Repair"):
        BadPictures(limit=2).add([str(number) for number in range(7)])


def test_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="max_bad_pictures is -1; expected 0 or more"):
        BadPictures(limit=-1)
