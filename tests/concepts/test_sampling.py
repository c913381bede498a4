from collections import Counter

import pytest

from synth2_lightning.concepts.sampling import BalancedSampling, UniformSampling, WeightedSampling
from synth2_lightning.interfaces import ConceptSampler
from synth2_lightning.types import Concept

SAMPLERS = [UniformSampling(), BalancedSampling(), BalancedSampling(min_concepts=3), WeightedSampling(0.5)]
BRANCHES = "animal", "animal", "animal", "animal", "animal", "plant", "plant", "food"
CONCEPTS = [
    Concept(str(number), f"number {number}", branch=branch, weight=float(1 + number))
    for number, branch in enumerate(BRANCHES)
]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sample_is_a_function_of_its_arguments_and_begins_like_a_shorter_one(sampler: ConceptSampler) -> None:
    long = sampler.sample(CONCEPTS, 50, seed=3)
    assert sampler.sample(CONCEPTS, 50, seed=3) == long
    assert [sampler.sample(CONCEPTS, count, seed=3) for count in (0, 1, 7, 20)] == [long[:n] for n in (0, 1, 7, 20)]
    assert sampler.sample(CONCEPTS, 50, seed=4) != long


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_source_without_concepts_is_refused(sampler: ConceptSampler) -> None:
    with pytest.raises(ValueError, match=r"no concept\b"):
        sampler.sample([], 3, seed=0)


def test_uniform_samples_have_every_concept_once_before_any_twice() -> None:
    drawn = UniformSampling().sample(CONCEPTS, 24, seed=0)
    passes = [drawn[start : start + 8] for start in (0, 8, 16)]
    assert all(sorted(one) == list(range(8)) for one in passes)
    assert passes[0] != passes[1]


def test_balanced_samples_alternate_and_cycle_through_each_branch() -> None:
    drawn = BalancedSampling().sample(CONCEPTS, 30, seed=0)
    for start in range(0, 30, 3):
        assert {BRANCHES[index] for index in drawn[start : start + 3]} == {"animal", "plant", "food"}
    animals = [index for index in drawn if BRANCHES[index] == "animal"]
    assert sorted(animals[:5]) == sorted(animals[5:]) == [0, 1, 2, 3, 4]


def test_small_branches_take_one_turn_together() -> None:
    counts = Counter(BalancedSampling(min_concepts=3).sample(CONCEPTS, 30, seed=0))
    assert sum(counts[index] for index in range(5)) == 15
    assert [counts[index] for index in (5, 6, 7)] == [5, 5, 5]


@pytest.mark.parametrize(("exponent", "fraction"), [(1.0, 8 / 36), (0.0, 1 / 8), (2.0, 64 / 204)])
def test_weighted_samples_follow_the_weights(exponent: float, fraction: float) -> None:
    drawn = WeightedSampling(exponent).sample(CONCEPTS, 20_000, seed=0)
    assert drawn.count(7) / 20_000 == pytest.approx(fraction, abs=0.01)


def test_samplers_record_their_arguments() -> None:
    assert [sampler.provenance() for sampler in SAMPLERS[1:]] == [
        {"sampler": "balanced", "min_concepts": 1},
        {"sampler": "balanced", "min_concepts": 3},
        {"sampler": "weighted", "exponent": 0.5},
    ]
    assert SAMPLERS[0].provenance() == {"sampler": "uniform"}


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"BalancedSampling.*min_concepts=0"):
        BalancedSampling(0)
    for exponent in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"WeightedSampling.*exponent={exponent}"):
            WeightedSampling(exponent)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_are_above_zero(weight: float) -> None:
    concepts = [*CONCEPTS, Concept("bad", "bad one", weight=weight)]
    with pytest.raises(ValueError, match=rf"'bad one'.*{weight}"):
        WeightedSampling().sample(concepts, 3, seed=0)
