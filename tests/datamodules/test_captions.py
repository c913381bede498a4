from collections.abc import Sequence
from unittest.mock import Mock

import pytest

from synth2_lightning.datamodules.captions import CaptionDataModule, record_seed
from synth2_lightning.interfaces import CaptionSource, HasProvenance, Skippable
from synth2_lightning.types import CaptionBatch, CaptionRecord, SampleInfo


class Numbers(CaptionSource):
    name = "numbers"

    def __init__(self, size: int, prefix: str = "") -> None:
        self.size = size
        self.prefix = prefix

    def __len__(self) -> int:
        return self.size

    def record(self, index: int) -> CaptionRecord:
        return CaptionRecord(f"{self.prefix}{index}", f"number {index}", "odd" if index % 2 else "")


def batches(data: CaptionDataModule, rank: int = 0, world_size: int = 1) -> Sequence[CaptionBatch]:
    data.trainer = Mock(global_rank=rank, world_size=world_size)
    loader = data.predict_dataloader()
    found = list(loader)
    assert len(found) == len(loader)
    return found


def make(size: int = 7, batch_size: int = 3, seed: int = 0, num_per_caption: int = 1) -> CaptionDataModule:
    data = CaptionDataModule(Numbers(size), batch_size, seed, num_per_caption)
    data.setup("predict")
    return data


def test_a_batch_names_all_of_its_records() -> None:
    assert batches(make(batch_size=2))[0] == CaptionBatch(
        captions=("number 0", "number 1"),
        samples=(
            SampleInfo("0", "numbers", "", record_seed(0, "0")),
            SampleInfo("1", "numbers", "odd", record_seed(0, "1")),
        ),
    )


@pytest.mark.parametrize(("batch_size", "world_size"), [(3, 1), (2, 2), (1, 3), (4, 9)])
def test_each_record_comes_once_over_all_ranks_with_the_same_seed(batch_size: int, world_size: int) -> None:
    data = make(batch_size=batch_size, num_per_caption=2)
    ranks = [batches(data, rank, world_size) for rank in range(world_size)]
    records = [
        record
        for rank in ranks
        for batch in rank
        for record in zip(batch.keys, batch.captions, batch.seeds, strict=True)
    ]

    keys = [f"{number}{copy}" for copy in ("", "~1") for number in range(7)]
    assert records == [(key, f"number {key[0]}", record_seed(0, key)) for key in keys]


def test_seeds_are_fixed_for_ever_and_fit_the_shard() -> None:
    assert record_seed(0, "coco/1") == 6133836786089391390  # another value would make another image of an old record
    seeds = {record_seed(seed, str(key)) for seed in range(3) for key in range(500)}
    assert len(seeds) == 1500
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_remaining_records_are_distributed_again(world_size: int) -> None:
    data = make(num_per_caption=2)
    data.skip({("numbers", "0"), ("numbers", "3~1"), ("others", "1")})
    keys = [key for rank in range(world_size) for batch in batches(data, rank, world_size) for key in batch.keys]
    assert keys == ["1", "2", "3", "4", "5", "6", "0~1", "1~1", "2~1", "4~1", "5~1", "6~1"]

    data.setup("predict")
    assert sum(len(batch) for batch in batches(data)) == 14


def test_everything_may_be_left_out() -> None:
    data = make(2)
    data.skip({("numbers", "0"), ("numbers", "1")})
    assert batches(data) == []


def test_it_provides_what_a_resumed_prediction_requests() -> None:
    assert isinstance(make(), Skippable)
    assert isinstance(make(), HasProvenance)
    assert make(seed=5).provenance() == {"seed": 5, "is_evaluation": False}


def test_other_stages_are_refused() -> None:
    with pytest.raises(ValueError, match=r"CaptionDataModule.*'fit'.*shards"):
        CaptionDataModule(Numbers(1)).setup("fit")


def test_keys_in_the_form_of_copies_are_refused() -> None:
    data = CaptionDataModule(Numbers(1, prefix="a~"), num_per_caption=2)
    with pytest.raises(ValueError, match=r"'a~0'.*'numbers'.*'~'"):
        data.setup("predict")
    CaptionDataModule(Numbers(1, prefix="a~")).setup("predict")


@pytest.mark.parametrize("name", ["batch_size", "num_per_caption"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"CaptionDataModule got {name}=0; expected 1 or more"):
        CaptionDataModule(Numbers(1), **{name: 0})
