"""Seeding of training steps."""

import random
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_FLOATS_PER_COUNT = 8  # float32 numbers that Philox-4x64 makes of one count


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
        self._rank = 0

    def start_step(self, step: int, rank: int) -> None:
        """Seed the generators of torch, Python and NumPy; the step is the number of the batch over all epochs."""
        key = [self.run_seed or 0, step]
        self._step_seed, self._rank = _derive_seed(key), rank
        seed = _derive_seed([*key, rank])
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - third parties use it

    def sample_rows(self, num_rows: int, width: int) -> Float[Tensor, "rows width"]:
        """Return uniform numbers in [0, 1) for this rank's rows of the global batch, as one process would sample them.

        Ranks have equally many rows. The numbers are those of one stream of Philox (Salmon et al., SC 2011), whose
        counter is set to the first row of the rank, so that no rank computes those of others.

        Args:
            num_rows: Number of rows of this rank.
            width: Numbers per row.
        """
        if self._step_seed is None:  # outside of a fit
            return torch.rand(num_rows, width)
        num_blocks = -(-width // _FLOATS_PER_COUNT)
        stream = np.random.Philox(self._step_seed, counter=self._rank * num_rows * num_blocks)
        values = np.random.Generator(stream).random((num_rows, num_blocks * _FLOATS_PER_COUNT), dtype=np.float32)
        return torch.from_numpy(values[:, :width])


def _derive_seed(key: list[int]) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def seed_of_key(key: str) -> int:
    """Return a seed of 48 bits that follows from the key of a record: the same in all epochs and on all ranks.

    Example:
        >>> seed_of_key("1")
        9829741083883
    """
    return int.from_bytes(blake2b(key.encode(), digest_size=6).digest(), "little")
