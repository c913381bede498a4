"""Seeding of training steps."""

import random

import numpy as np
import torch


class StepSeeds:
    """Seeds the global random generators at every training step, from the run's seed, the step and the rank.

    So a resumed run samples the same numbers as an uninterrupted one, without saved generator states, and independent
    of validations.

    Attributes:
        run_seed: The run's seed; None until it is known.

    Example:
        >>> seeds = StepSeeds()
        >>> seeds.run_seed = 1
        >>> seeds.start_step(7, rank=0)
        >>> values = torch.rand(2)
        >>> seeds.start_step(7, rank=0)
        >>> torch.equal(values, torch.rand(2))
        True
    """

    def __init__(self) -> None:
        self.run_seed: int | None = None
        self._step_seed: int | None = None

    def start_step(self, step: int, rank: int) -> None:
        """Seed the generators of torch, Python and NumPy; the step is the number of the batch over all epochs."""
        key = [self.run_seed or 0, step]
        self._step_seed = _derive_seed(key)
        seed = _derive_seed([*key, rank])
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - third parties use it

    def shared_generator(self) -> torch.Generator:
        """Return a generator with the same state on all ranks; torch's default generator outside of a fit."""
        if self._step_seed is None:
            return torch.default_generator
        return torch.Generator().manual_seed(self._step_seed)


def _derive_seed(key: list[int]) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
