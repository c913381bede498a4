import random

import numpy as np
import torch

from synth2_lightning.modules.seeding import StepSeeds


def sample(seeds: StepSeeds) -> tuple[float, float, float, float]:
    """Numbers of torch, Python and NumPy, then one of the shared generator."""
    shared = torch.rand((), generator=seeds.shared_generator()).item()
    return torch.rand(()).item(), random.random(), np.random.rand(), shared  # noqa: NPY002


def start(run_seed: int = 1, step: int = 3, rank: int = 0) -> tuple[float, float, float, float]:
    seeds = StepSeeds()
    seeds.run_seed = run_seed
    seeds.start_step(step, rank)
    return sample(seeds)


def test_ranks_sample_differently_except_from_the_shared_generator() -> None:
    first, second = start(rank=0), start(rank=1)
    assert all(one != other for one, other in zip(first[:3], second[:3], strict=True))
    assert first[3] == second[3]


def test_samples_follow_from_seed_and_step() -> None:
    assert start() == start()
    assert not set(start()) & set(start(step=4))
    assert not set(start()) & set(start(run_seed=2))


def test_outside_of_a_fit_the_shared_generator_is_torchs() -> None:
    assert StepSeeds().shared_generator() is torch.default_generator
