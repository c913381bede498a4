from collections.abc import Callable
from unittest.mock import Mock

import pytest

from synth2_lightning.datamodules.shards import ShardDataModule
from synth2_lightning.interfaces import HasProvenance, Skippable

MakeShards = Callable[..., str]


def keys(data: ShardDataModule, rank: int = 0, world_size: int = 1) -> list[tuple[str, ...]]:
    data.trainer = Mock(global_rank=rank, world_size=world_size)
    loader = data.predict_dataloader()
    found = [batch.keys for batch in loader]
    assert len(found) == len(loader)
    return found


def test_each_row_comes_once_over_all_ranks(make_shards: MakeShards) -> None:
    data = ShardDataModule(make_shards(5, scores=tuple((float(row),) for row in range(5))), batch_size=2)
    data.setup("predict")

    assert keys(data) == [("s0", "s1"), ("s2", "s3"), ("s4",)]
    assert [keys(data, rank, 2) for rank in range(2)] == [[("s0", "s1"), ("s2",)], [("s3", "s4")]]
    assert next(iter(data.predict_dataloader())).scores == ((3.0,), (4.0,))  # of the rank that was set last


def test_what_is_left_out_is_not_scored_again(make_shards: MakeShards) -> None:
    data = ShardDataModule(make_shards(5), batch_size=2)
    assert isinstance(data, Skippable)
    data.setup("predict")
    data.skip({("synthetic", "s1"), ("synthetic", "s2"), ("other", "s0")})
    assert keys(data) == [("s0", "s3"), ("s4",)]


def test_provenance_is_that_of_the_shards(make_shards: MakeShards) -> None:
    data = ShardDataModule(make_shards(1))
    assert isinstance(data, HasProvenance)
    data.setup("predict")
    assert data.provenance() == {"shards": {}, "is_evaluation": False}


def test_other_runs_and_batches_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ShardDataModule.*'fit'.*SyntheticDataModule"):
        ShardDataModule("shards").setup("fit")
    with pytest.raises(ValueError, match=r"ShardDataModule.*batch_size=0.*1"):
        ShardDataModule("shards", batch_size=0)
