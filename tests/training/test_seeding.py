import random

import numpy as np
import pytest
import torch

from synth2_lightning.training.seeding import StepSeeds


def start(run_seed: int = 1, step: int = 3, rank: int = 0) -> StepSeeds:
    seeds = StepSeeds()
    seeds.run_seed = run_seed
    seeds.start_step(step, rank)
    return seeds


def sample(run_seed: int = 1, step: int = 3, rank: int = 0) -> tuple[float, ...]:
    """Numbers of torch, Python and NumPy, then one of the rows of a step."""
    seeds = start(run_seed, step, rank)
    return torch.rand(()).item(), random.random(), np.random.rand(), seeds.sample_rows(1, 1).item()  # noqa: NPY002


def test_ranks_sample_differently() -> None:
    assert not set(sample(rank=0)) & set(sample(rank=1))


@pytest.mark.parametrize("width", [1, 8, 66, 258])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_rows_do_not_depend_on_the_number_of_ranks(width: int, world_size: int) -> None:
    rows = [start(rank=rank).sample_rows(8 // world_size, width) for rank in range(world_size)]
    assert torch.equal(torch.cat(rows), start().sample_rows(8, width))
    assert rows[0].shape == (8 // world_size, width)


def test_rows_are_uniform_and_independent() -> None:
    values = start().sample_rows(20_000, 10)
    assert 0 <= float(values.min()) < 0.001 < 0.999 < float(values.max()) < 1
    torch.testing.assert_close(values.mean(0), torch.full((10,), 0.5), atol=0.01, rtol=0)
    correlations = torch.corrcoef(torch.cat([values[:-1], values[1:]], dim=1).T) - torch.eye(20)
    assert correlations.abs().max() < 0.03


def test_samples_follow_from_seed_and_step() -> None:
    assert sample() == sample()
    assert not set(sample()) & set(sample(step=4))
    assert not set(sample()) & set(sample(run_seed=2))


def test_outside_of_a_fit_rows_are_of_torchs_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2, 3)
    torch.manual_seed(5)
    assert torch.equal(StepSeeds().sample_rows(2, 3), expected)
