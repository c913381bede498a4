import logging

import pytest

from synth2_lightning.datamodules.bad_images import BadImages


def test_each_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    bad = BadImages(limit=2)
    with caplog.at_level(logging.WARNING):
        bad.add(["coco/1: cut"])
        bad.add(["coco/1: cut", "coco/2: cut"])

    assert [record.message for record in caplog.records] == [
        "Replaced by another image: coco/1: cut",
        "Replaced by another image: coco/2: cut",
    ]


def test_too_many_are_refused_with_names() -> None:
    message = (
        "3 images could not be read: a; b; c. Expected at most max_bad_images=2. Repair them, remove "
        "them from the index, or raise max_bad_images."
    )
    bad = BadImages(limit=2)
    bad.add(["a", "b"])
    with pytest.raises(ValueError, match=message):
        bad.add(["c"])
    with pytest.raises(ValueError, match=r"^7 .*0; 1; 2; 3; 4; and others"):
        BadImages(limit=2).add([str(number) for number in range(7)])


def test_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_bad.*-1"):
        BadImages(limit=-1)
