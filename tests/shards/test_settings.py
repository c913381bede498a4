from pathlib import Path

import pytest

from synth2_lightning.shards.settings import check_same_settings


def test_every_difference_is_named_by_its_path() -> None:
    message = (
        "The records in shards were made with other settings: a.b is 1 there and 2 in this run; c is not set there and "
        "'x' in this run. Expected one set"
    )
    with pytest.raises(ValueError, match=message):
        check_same_settings(Path("shards"), {"a": {"b": 1, "d": 0}}, {"a": {"b": 2, "d": 0}, "c": "x"})


def test_order_does_not_matter() -> None:
    check_same_settings(Path("shards"), {"a": {"b": 1, "c": 2}, "d": 3}, {"d": 3, "a": {"c": 2, "b": 1}})
