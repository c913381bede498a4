import logging

import pytest

from synth2_lightning.datamodules.bad_images import BadImages


def test_each_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    bad = BadImages(limit=2)
    with caplog.at_level(logging.WARNING):
        bad.add(["coco/1: cut"], 4)
        bad.add(["coco/1: cut", "coco/2: cut"], 4)

    assert [record.message for record in caplog.records] == [
        "Replaced by another image: coco/1: cut",
        "Replaced by another image: coco/2: cut",
    ]


def test_too_many_are_refused_with_names() -> None:
    bad = BadImages(limit=2)
    bad.add(["a", "b"], 4)
    with pytest.raises(ValueError, match=r"^3 images.*: a; b; c\..*max_bad_images=2 of 1000.*raise max_bad_images"):
        bad.add(["c"], 4)
    with pytest.raises(ValueError, match=r"^7 .*0; 1; 2; 3; 4; and others"):
        BadImages(limit=2).add([str(number) for number in range(7)], 7)


def test_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_bad.*-1"):
        BadImages(limit=-1)


def test_a_large_set_may_have_a_fraction_of_unreadable_images(caplog: pytest.LogCaptureFixture) -> None:
    bad = BadImages(limit=2)
    for batch in range(1000):
        bad.add([str(batch)] * (batch % 5 == 0), num_read=100)  # 2 of 1,000
    assert len(bad.names) == 200
    assert len(caplog.records) == 101
    assert "without a warning" in caplog.text
    with pytest.raises(ValueError, match=r"^3 images.*995; a; b"):
        bad.add(["a", "b"], num_read=100)


def test_an_image_counts_the_first_time() -> None:
    bad = BadImages(limit=1)
    for _ in range(5):  # epochs
        bad.add(["a"], num_read=2000)
    bad.add(["b"], num_read=10)
