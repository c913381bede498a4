from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import Mock

import pytest

from synth2_lightning.datamodules.captions import CaptionDataModule, record_seed
from synth2_lightning.interfaces import CaptionSource, HasProvenance, Skippable
from synth2_lightning.io.fingerprints import fingerprint_texts
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
        captions=(("number 0",), ("number 1",)),
        conditions=(("number 0",), ("number 1",)),
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
    assert records == [(key, (f"number {key[0]}",), record_seed(0, key)) for key in keys]


def test_seeds_are_fixed_for_ever_and_fit_the_shard() -> None:
    assert record_seed(0, "coco/1") == 6133836786089391390  # another value would change the images of existing records
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
    assert make(seed=5).provenance() == {
        "seed": 5,
        "by_image": False,
        "num_conditions": 1,
        "is_evaluation": False,
    }


class Images(Numbers):
    """Captions 0, 2 and 4 describe one image, 1 and 3 another."""

    def record(self, index: int) -> CaptionRecord:
        return replace(super().record(index), image_id="odd" if index % 2 else "even")


def read_images(num_conditions: int | None, num_per_caption: int = 1) -> CaptionBatch:
    data = CaptionDataModule(Images(5), 99, 0, num_per_caption, by_image=True, num_conditions=num_conditions)
    data.setup("predict")
    (batch,) = batches(data)
    return batch


EVEN, ODD = ("number 0", "number 2", "number 4"), ("number 1", "number 3")


def test_an_image_is_one_record_with_all_its_captions() -> None:
    batch = read_images(num_conditions=None)
    assert batch.captions == batch.conditions == (EVEN, ODD)
    assert batch.samples == (
        SampleInfo("even", "numbers", "", record_seed(0, "even")),
        SampleInfo("odd", "numbers", "odd", record_seed(0, "odd")),
    )


def test_images_of_a_record_are_generated_from_its_captions_in_turn() -> None:
    batch = read_images(num_conditions=1, num_per_caption=4)
    assert batch.keys == ("even", "odd", "even~1", "odd~1", "even~2", "odd~2", "even~3", "odd~3")
    assert batch.captions == (EVEN, ODD) * 4
    assert batch.conditions[::2] == (EVEN[:1], EVEN[1:2], EVEN[2:], EVEN[:1])
    assert batch.conditions[1::2] == (ODD[:1], ODD[1:], ODD[:1], ODD[1:])
    assert read_images(num_conditions=2, num_per_caption=2).conditions == (EVEN[:2], ODD, EVEN[2:] + EVEN[:1], ODD)


def test_a_changed_caption_of_an_image_is_noticed() -> None:
    data = CaptionDataModule(Images(5), by_image=True)
    data.setup("predict")
    before = data.fingerprint_inputs([("numbers", "odd"), ("numbers", "odd~1"), ("numbers", "k0"), ("other", "odd")])
    assert before[0] == before[1] == fingerprint_texts([*ODD, "odd"])
    assert before[2:] == ["", None]
    data.captions = Images(7)
    data.setup("predict")
    assert data.fingerprint_inputs([("numbers", "odd")]) == [fingerprint_texts([*ODD, "number 5", "odd"])]


def test_reading_before_setup_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"setup\(\"predict\"\)"):
        CaptionDataModule(Numbers(1)).read([0])


def test_other_stages_are_refused() -> None:
    with pytest.raises(ValueError, match=r"CaptionDataModule.*'fit'.*shards"):
        CaptionDataModule(Numbers(1)).setup("fit")


def test_keys_in_the_form_of_copies_are_refused() -> None:
    data = CaptionDataModule(Numbers(1, prefix="a~"), num_per_caption=2)
    with pytest.raises(ValueError, match=r"'a~0'.*'numbers'.*'~'"):
        data.setup("predict")
    CaptionDataModule(Numbers(1, prefix="a~")).setup("predict")


@pytest.mark.parametrize("name", ["batch_size", "num_per_caption", "num_conditions"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"CaptionDataModule got {name}=0; expected 1 or more"):
        CaptionDataModule(Numbers(1), **{name: 0})  # type: ignore[arg-type]
