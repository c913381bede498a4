from collections import Counter

import numpy as np
import pytest
from torch.utils.data.distributed import DistributedSampler

from synth2_lightning.datamodules.sampling import EvaluationBatchSampler, PredictionBatchSampler, StratifiedBatchSampler


def counts(step: int) -> tuple[int, int]:
    """Return counts of the strata, with 4, 3, 2 and 1 of the first one in turn."""
    return 4 - step % 4, step % 4


def make(rank: int = 0, world_size: int = 1, seed: int = 0, sizes: tuple[int, int] = (23, 7)) -> StratifiedBatchSampler:
    return StratifiedBatchSampler(sizes, counts, num_steps=10, seed=seed, rank=rank, world_size=world_size)


def test_lightning_leaves_the_samplers_alone() -> None:
    assert isinstance(make(), DistributedSampler)
    assert isinstance(EvaluationBatchSampler(3, batch_size=2), DistributedSampler)


def test_every_rank_has_the_same_counts_in_every_step_first_stratum_first() -> None:
    for step in range(40):
        for rank in range(3):
            batch = make(rank, world_size=3).batch(step)
            kinds = [index >= 23 for index in batch]
            assert kinds == [False] * counts(step)[0] + [True] * counts(step)[1]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_item_comes_once_over_all_ranks_before_any_comes_again(world_size: int) -> None:
    samplers = [make(rank, world_size) for rank in range(world_size)]
    drawn: list[list[int]] = [[], []]
    for step in range(60):
        batches = [sampler.batch(step) for sampler in samplers]
        for stratum in range(2):
            for batch in batches:
                drawn[stratum] += [index for index in batch if (index >= 23) == bool(stratum)]

    for items, expected in zip(drawn, (range(23), range(23, 30)), strict=True):
        passes = [items[start : start + len(expected)] for start in range(0, len(items), len(expected))][:-1]
        assert len(passes) >= 4
        assert all(sorted(one) == list(expected) for one in passes)
        assert len({tuple(one) for one in passes}) == len(passes)


def test_the_batch_over_all_ranks_does_not_depend_on_their_number() -> None:
    one = StratifiedBatchSampler([50], lambda step: (6,), num_steps=1)
    three = [StratifiedBatchSampler([50], lambda step: (2,), num_steps=1, rank=rank, world_size=3) for rank in range(3)]

    for step in (0, 7, 8, 30):
        assert one.batch(step) == [index for sampler in three for index in sampler.batch(step)]


def test_a_step_does_not_depend_on_how_it_was_reached() -> None:
    straight = make()
    reached = [straight.batch(step) for step in range(30)]

    assert make().batch(17) == reached[17]
    assert straight.batch(3) == reached[3]
    resumed = make()
    resumed.step = 12
    assert list(resumed) == reached[12:22]


def test_an_epoch_starts_where_the_last_one_ended() -> None:
    sampler = make()
    first = list(sampler)
    sampler.step += len(first)

    assert len(first) == len(sampler) == 10
    assert first + list(sampler) == [make().batch(step) for step in range(20)]


def test_seeds_shuffle_differently() -> None:
    assert make(seed=0).batch(0) != make(seed=1).batch(0)


def test_a_stratum_smaller_than_a_batch_repeats() -> None:
    batch = StratifiedBatchSampler([3], lambda step: (7,), num_steps=1).batch(0)

    assert Counter(batch[:6]) == {0: 2, 1: 2, 2: 2}


def test_an_empty_stratum_is_refused_when_its_items_are_needed() -> None:
    assert len(StratifiedBatchSampler([3, 0], lambda step: (2, 0), num_steps=1).batch(5)) == 2
    with pytest.raises(ValueError, match=r"1 items of stratum 1"):
        StratifiedBatchSampler([3, 0], lambda step: (2, 1), num_steps=1).batch(0)


def make_variants(rank: int = 0, world_size: int = 1) -> StratifiedBatchSampler:
    num_steps, num_variants = 10, (2, 1)
    return StratifiedBatchSampler(
        (23, 7), counts, num_steps, rank=rank, world_size=world_size, num_variants=num_variants
    )


def test_the_order_of_each_stratum_is_a_permutation_of_its_own() -> None:
    first, second = (np.random.default_rng([5, stratum, 0]).permutation(23) for stratum in range(2))
    assert make(seed=5, sizes=(23, 23)).batch(3) == [first[9], *23 + second[3:6]]


def test_variants_do_not_change_which_pairs_are_in_a_batch() -> None:
    for step in range(40):
        batch = make_variants().batch(step)
        assert [item % 23 if item < 46 else item - 23 for item in batch] == make().batch(step)
        assert [item >= 46 for item in batch] == [item >= 23 for item in make().batch(step)]


def test_a_pass_uses_each_item_in_one_variant_and_passes_differ() -> None:
    drawn = [item for step in range(200) for item in make_variants().batch(step) if item < 46]
    passes = [drawn[start : start + 23] for start in range(0, len(drawn) - 22, 23)]
    assert len(passes) >= 20
    assert all(sorted(item % 23 for item in one) == list(range(23)) for one in passes)
    assert len({frozenset(one) for one in passes}) == len(passes)
    assert 0.4 < np.mean([item >= 23 for one in passes for item in one]) < 0.6


def test_variants_do_not_depend_on_ranks_or_on_a_stop() -> None:
    one = StratifiedBatchSampler([50], lambda step: (6,), num_steps=9, num_variants=[2])
    ranks = [StratifiedBatchSampler([50], lambda step: (2,), 9, 0, rank, 3, num_variants=[2]) for rank in range(3)]
    for step in (0, 7, 8, 30):
        assert one.batch(step) == [item for sampler in ranks for item in sampler.batch(step)]
    stopped, resumed = make_variants(), make_variants()
    stopped.step = 7
    resumed.load_state_dict(stopped.state_dict())
    assert list(resumed) == [make_variants().batch(step) for step in range(7, 17)]


def test_an_epoch_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_steps=0.*1.*epoch"):
        StratifiedBatchSampler([3], lambda step: (2,), num_steps=0)


@pytest.mark.parametrize(("num_items", "batch_size", "world_size"), [(10, 4, 1), (10, 4, 3), (2, 4, 3), (12, 3, 2)])
def test_evaluation_gives_every_rank_equally_many_equally_large_batches(
    num_items: int, batch_size: int, world_size: int
) -> None:
    ranks = [list(EvaluationBatchSampler(num_items, batch_size, rank, world_size)) for rank in range(world_size)]

    assert len({tuple(len(batch) for batch in batches) for batches in ranks}) == 1
    seen = [index for batches in ranks for batch in batches for index in batch]
    assert set(seen) == set(range(num_items))
    assert len(seen) < num_items + world_size
    assert len(EvaluationBatchSampler(num_items, batch_size, 0, world_size)) == len(ranks[0])


@pytest.mark.parametrize(("num_items", "world_size"), [(10, 1), (10, 3), (2, 3), (4, 3)])
def test_prediction_gives_every_item_once(num_items: int, world_size: int) -> None:
    samplers = [PredictionBatchSampler(num_items, 4, rank, world_size) for rank in range(world_size)]
    seen = [index for sampler in samplers for batch in sampler for index in batch]

    assert seen == list(range(num_items))
    assert [len(list(sampler)) for sampler in samplers] == [len(sampler) for sampler in samplers]


def test_another_number_of_ranks_takes_what_is_left() -> None:
    def ranks(num: int, num_steps: int = 5) -> list[StratifiedBatchSampler]:
        return [StratifiedBatchSampler([40, 20], lambda step: (2, 1), num_steps, 3, rank, num) for rank in range(num)]

    seen = [index for sampler in ranks(4) for step in range(2) for index in sampler.batch(step)]
    stopped = ranks(4)[1]
    stopped.step = 2
    for num in (1, 2, 3):
        resumed = ranks(num)
        for sampler in resumed:
            sampler.load_state_dict(stopped.state_dict())
        num_left = 12 // num
        left = [index for sampler in resumed for step in range(2, 2 + num_left) for index in sampler.batch(step)]
        assert sorted(seen + left) == list(range(60))


def test_a_state_of_other_data_is_refused() -> None:
    sampler = StratifiedBatchSampler([4, 4], lambda step: (1, 1), num_steps=2)
    with pytest.raises(ValueError, match=r"1 strata.*there are 2"):
        sampler.load_state_dict({"step": 1, "drawn": [3]})


def test_the_state_is_that_of_the_step_not_of_what_was_read_ahead() -> None:
    sampler = StratifiedBatchSampler([100], lambda step: (step,), num_steps=9)
    assert sampler.batch(6)
    sampler.step = 4
    assert sampler.state_dict() == {"step": 4, "drawn": [0 + 1 + 2 + 3]}
    assert sampler.batch(2) == StratifiedBatchSampler([100], lambda step: (step,), num_steps=9).batch(2)
