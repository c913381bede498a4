from collections.abc import Sequence
from unittest.mock import Mock

import pytest
from lightning.pytorch import Trainer

from synth2_lightning.datamodules.predict import PredictDataModule


class Letters(PredictDataModule[str, tuple[str, ...]]):
    other_stages = "Read them aloud."

    def list_items(self) -> str:
        return "abcde"

    def name_items(self, items: Sequence[str]) -> list[tuple[str, str]]:
        return [("letters", item) for item in items]

    def read(self, items: Sequence[str]) -> tuple[str, ...]:
        return tuple(items)


def make(batch_size: int = 2) -> Letters:
    data = Letters(batch_size)
    data.setup("predict")
    return data


def test_every_item_comes_once_over_all_ranks() -> None:
    data, found = make(), []
    for rank in range(2):
        data.trainer = Mock(spec=Trainer, global_rank=rank, world_size=2)
        batches = data.predict_dataloader()
        assert len(batches) == len(list(batches))
        found += [item for batch in batches for item in batch]
    assert found == list("abcde")
    assert data.allow_zero_length_dataloader_with_multiple_devices


def test_what_is_left_out_is_not_read_until_the_next_setup() -> None:
    data = make()
    data.skip({("letters", "b"), ("digits", "c")})
    data.skip({("letters", "e")})
    assert list(data.predict_dataloader()) == [("a", "c"), ("d",)]
    data.setup("predict")
    assert list(data.predict_dataloader()) == [("a", "b"), ("c", "d"), ("e",)]


def test_other_stages_and_batches_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Letters.*'fit'.*Read them aloud"):
        make().setup("fit")
    with pytest.raises(ValueError, match=r"Letters.*batch_size=0"):
        make(batch_size=0)
