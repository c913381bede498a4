"""Batch samplers that are functions of the seed, the step and the rank only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data.distributed import DistributedSampler


class StratifiedBatchSampler(DistributedSampler[list[int]]):
    """Yields batches with a given number of items of each stratum per step, such as real and synthetic pairs.

    In each step all ranks have the same number of items of each stratum, in the order of the strata. Otherwise ranks
    would run different encoders and deadlock in collectives (DDP, FSDP).

    A stratum is shuffled once per *pass*; all of its items are used before any is used again. The batch of a step
    depends on the seed, the step, and the number of items of each stratum in earlier steps. This is the whole state, so
    that a run resumes on any number of ranks. Item numbers of the second stratum follow those of the first.

    The sampler yields the list of items of a whole batch: use ``DataLoader(batch_size=None)``. It is a
    ``DistributedSampler``, because Lightning does not replace those.

    Args:
        sizes: Number of items of each stratum.
        counts: Returns the number of items of each stratum for one rank in a step.
        num_steps: Number of batches of one iteration, an epoch.
        seed: Non-negative seed, the same on all ranks.
        rank: Rank whose batches are yielded.
        world_size: Number of ranks.
        num_variants: Number of variants of the items of each stratum, such as an image and its mirror image; ``None``
            is one each. A pass uses a random variant of each item. Item numbers of the second variant follow those of
            the first.

    Attributes:
        step: First step of the next iteration.

    Raises:
        ValueError: If an epoch has no step.

    Example:
        >>> sampler = StratifiedBatchSampler([100, 50], counts=lambda step: (3, 1), num_steps=25)
        >>> [index >= 100 for index in next(iter(sampler))]
        [False, False, False, True]
    """

    def __init__(
        self,
        sizes: Sequence[int],
        counts: Callable[[int], tuple[int, ...]],
        num_steps: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_variants: Sequence[int] | None = None,
    ) -> None:
        items: Any = range(sum(sizes))
        super().__init__(items, num_replicas=world_size, rank=rank, seed=seed)
        if num_steps < 1:
            raise ValueError(f"StratifiedBatchSampler got num_steps={num_steps}; expected 1 or more in an epoch.")
        self.sizes = tuple(sizes)
        self.counts = counts
        self.num_steps = num_steps
        self.num_variants = tuple(num_variants or [1] * len(sizes))
        self.step = 0
        self._start = self._saved = self._counted = (0, (0,) * len(self.sizes))
        self._passes: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.step, self.step + self.num_steps):
            yield self.batch(step)

    def state_dict(self) -> dict[str, Any]:
        """Return the next step, and the number of items of each stratum that all ranks used before it."""
        self._saved = (self.step, self._count_used(self.step))
        return {"step": self.step, "drawn": list(self._saved[1])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a step, with the unused items of the current pass.

        Raises:
            ValueError: If the state has another number of strata.
        """
        used = tuple(state["drawn"])
        if len(used) != len(self.sizes):
            raise ValueError(
                f"The checkpoint was saved with {len(used)} strata of training pairs, but there are {len(self.sizes)}; "
                "expected the data of the resumed run. Use its config.yaml."
            )
        self.step = state["step"]
        self._start = self._saved = self._counted = (self.step, used)

    def batch(self, step: int) -> list[int]:
        """Return this rank's items of a step.

        Raises:
            ValueError: If the step needs items of an empty stratum.
        """
        counts = self.counts(step)
        batch: list[int] = []
        for stratum, (used, count) in enumerate(zip(self._count_used(step), counts, strict=True)):
            if count:
                batch += self._take(stratum, used + self.rank * count, count)
        return batch

    def _count_used(self, step: int) -> tuple[int, ...]:
        """Return the number of items of each stratum that all ranks used before a step."""
        # Count from the latest known step: workers prefetch beyond the saved state.
        known, used = max(point for point in (self._start, self._saved, self._counted) if point[0] <= step)
        for earlier in range(known, step):
            used = tuple(
                total + self.num_replicas * count for total, count in zip(used, self.counts(earlier), strict=True)
            )
        self._counted = (step, used)
        return used

    def _take(self, stratum: int, start: int, count: int) -> list[int]:
        size = self.sizes[stratum]
        if size == 0:
            raise ValueError(
                f"A batch needs {count} items of stratum {stratum}, which has none; expected at least one. Add data, "
                "or set its count to 0."
            )
        num_items = [items * variants for items, variants in zip(self.sizes, self.num_variants, strict=True)]
        offset = sum(num_items[:stratum])
        positions = np.arange(start, start + count)
        passes = positions // size
        orders = [self._shuffle(stratum, int(pass_))[positions[passes == pass_] % size] for pass_ in np.unique(passes)]
        return [int(item) for item in np.concatenate(orders) + offset]

    def _shuffle(self, stratum: int, pass_: int) -> NDArray[np.int64]:
        """Return the order of a stratum in one of its passes, with a variant of each item; the latest is cached."""
        if stratum not in self._passes or self._passes[stratum][0] != pass_:
            generator = np.random.default_rng([self.seed, stratum, pass_])
            size = self.sizes[stratum]
            order = generator.permutation(size)  # before the variants, so that their number does not change it
            if self.num_variants[stratum] > 1:
                order += size * generator.integers(self.num_variants[stratum], size=size)
            self._passes[stratum] = (pass_, order)
        return self._passes[stratum][1]


class EvaluationBatchSampler(DistributedSampler[list[int]]):
    """Yields items in order, with the same number and size of batches on all ranks.

    If the items do not divide evenly, the first ones are repeated at the end: a rank without a batch would let the
    others deadlock in a collective. Metrics drop repeated keys.

    Args:
        num_items: Number of items over all ranks.
        batch_size: Items per batch; the last batch may be smaller.
        rank: Rank whose batches are yielded.
        world_size: Number of ranks.

    Example:
        >>> list(EvaluationBatchSampler(5, batch_size=2, rank=1, world_size=2))
        [[3, 4], [0]]
    """

    def __init__(self, num_items: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        items: Any = range(num_items)
        super().__init__(items, num_replicas=world_size, rank=rank, shuffle=False)
        self.num_items = num_items
        self.batch_size = batch_size

    def __len__(self) -> int:
        return (len(self.rank_items()) + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        items = self.rank_items()
        for start in range(0, len(items), self.batch_size):
            yield [item % self.num_items for item in items[start : start + self.batch_size]]

    def rank_items(self) -> range:
        """Return this rank's items; numbers from ``num_items`` on repeat the first items."""
        return range(self.rank * self.num_samples, (self.rank + 1) * self.num_samples)


class PredictionBatchSampler(EvaluationBatchSampler):
    """Yields items in order, each exactly once; the last ranks may have fewer or none.

    Example:
        >>> list(PredictionBatchSampler(5, batch_size=2, rank=1, world_size=2))
        [[3, 4]]
    """

    def rank_items(self) -> range:
        """Return this rank's items, without repeated ones."""
        items = super().rank_items()
        return range(min(items.start, self.num_items), min(items.stop, self.num_items))
