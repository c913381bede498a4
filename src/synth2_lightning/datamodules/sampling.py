"""Which items meet in the batch of a step: functions of the seed, the step and the rank, of nothing else."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data.distributed import DistributedSampler

Indices = np.ndarray[Any, np.dtype[np.int64]]


class StratifiedSampler(DistributedSampler[list[int]]):
    """Deals endless shuffled streams out to steps and ranks, so many items of each stream per step.

    The law of mixing: in every step every rank has the same number of items of each stream, in the order of the
    streams. Else one rank would skip an encoder while the others wait inside it for ever (DDP, FSDP).

    A stream goes through all its items in an order of its own (its *pass*) before any of them comes again. The batch
    of a step follows from the seed, the step and how many items of each stream were dealt out before it. That is all a
    run resumes from, whatever the number of ranks it had. Items are numbered through: those of the second stream follow
    those of the first.

    Each item that the sampler yields is the list of a whole batch: use it with ``DataLoader(batch_size=None)``. It is a
    ``DistributedSampler`` because Lightning leaves those alone.

    Args:
        sizes: Number of items of each stream.
        counts: Gives the number of items of each stream that one rank takes in a step.
        num_steps: Batches that one iteration yields: an epoch.
        seed: Not negative; the same on every rank.
        rank: Which rank's share to yield.
        world_size: Number of ranks.

    Attributes:
        step: The step that the next iteration begins with.

    Raises:
        ValueError: If there is less than one step in an epoch.

    Example:
        >>> sampler = StratifiedSampler([100, 50], counts=lambda step: (3, 1), num_steps=25)
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
    ) -> None:
        items: Any = range(sum(sizes))
        super().__init__(items, num_replicas=world_size, rank=rank, seed=seed)
        if num_steps < 1:
            raise ValueError(f"StratifiedSampler got num_steps={num_steps}; expected 1 or more in an epoch.")
        self.sizes = tuple(sizes)
        self.counts = counts
        self.num_steps = num_steps
        self.step = 0
        self._start = self._saved = self._drawn = (0, (0,) * len(self.sizes))
        self._passes: dict[int, tuple[int, Indices]] = {}

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.num_steps

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of one epoch, whatever step it begins with."""
        for step in range(self.step, self.step + self.num_steps):
            yield self.draw(step)

    def state_dict(self) -> dict[str, Any]:
        """The step that comes next, and the items of each stream that all ranks took before it."""
        self._saved = (self.step, self._count_drawn(self.step))
        return {"step": self.step, "drawn": list(self._saved[1])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a step, with the items that were not yet taken.

        Raises:
            ValueError: If the state is of another number of streams.
        """
        drawn = tuple(state["drawn"])
        if len(drawn) != len(self.sizes):
            raise ValueError(
                f"The checkpoint was saved with {len(drawn)} kinds of training pairs, and there are {len(self.sizes)}; "
                "expected the data of the run that is gone on with. Use its config.yaml."
            )
        self.step = state["step"]
        self._start = self._saved = self._drawn = (self.step, drawn)

    def draw(self, step: int) -> list[int]:
        """Give this rank's items of a step.

        Raises:
            ValueError: If the step takes items of a stream that has none.
        """
        counts = self.counts(step)
        batch: list[int] = []
        for stream, (drawn, count) in enumerate(zip(self._count_drawn(step), counts, strict=True)):
            if count:
                batch += self._take(stream, drawn + self.rank * count, count)
        return batch

    def _count_drawn(self, step: int) -> tuple[int, ...]:
        """How many items of each stream all ranks took before a step."""
        # Counted on from where it is known: workers read ahead of the state that is saved.
        known, drawn = max(point for point in (self._start, self._saved, self._drawn) if point[0] <= step)
        for earlier in range(known, step):
            drawn = tuple(
                total + self.num_replicas * count for total, count in zip(drawn, self.counts(earlier), strict=True)
            )
        self._drawn = (step, drawn)
        return drawn

    def _take(self, stream: int, start: int, count: int) -> list[int]:
        size = self.sizes[stream]
        if size == 0:
            raise ValueError(
                f"A batch wants {count} items of stream {stream}, which has none. Give it data, or a count of 0."
            )
        offset = sum(self.sizes[:stream])
        positions = np.arange(start, start + count)
        passes = positions // size
        orders = [self._shuffle(stream, int(pass_))[positions[passes == pass_] % size] for pass_ in np.unique(passes)]
        return [int(item) for item in np.concatenate(orders) + offset]

    def _shuffle(self, stream: int, pass_: int) -> Indices:
        """The order of a stream in one of its passes; the last one is kept, since steps follow each other."""
        if stream not in self._passes or self._passes[stream][0] != pass_:
            generator = np.random.default_rng([self.seed, stream, pass_])
            self._passes[stream] = (pass_, generator.permutation(self.sizes[stream]))
        return self._passes[stream][1]


class EvaluationSampler(DistributedSampler[list[int]]):
    """Deals items out in their order, the same number of equally large batches to every rank.

    Where the items do not divide evenly the first ones come again at the end: a rank without a batch would leave the
    others waiting in a collective call. Scores drop keys that they have seen.

    Args:
        num_items: Number of items over all ranks.
        batch_size: Items per batch; the last one may be smaller.
        rank: Which rank's share to yield.
        world_size: Number of ranks.

    Example:
        >>> list(EvaluationSampler(5, batch_size=2, rank=1, world_size=2))
        [[3, 4], [0]]
    """

    def __init__(self, num_items: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        items: Any = range(num_items)
        super().__init__(items, num_replicas=world_size, rank=rank, shuffle=False)
        self.num_items = num_items
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Batches of this rank."""
        return (len(self.share()) + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of this rank."""
        share = self.share()
        for start in range(0, len(share), self.batch_size):
            yield [item % self.num_items for item in share[start : start + self.batch_size]]

    def share(self) -> range:
        """This rank's items; those from ``num_items`` on are the first ones again."""
        return range(self.rank * self.num_samples, (self.rank + 1) * self.num_samples)


class PredictionSampler(EvaluationSampler):
    """Deals items out in their order, each exactly once: the last ranks may have fewer, or none.

    Example:
        >>> list(PredictionSampler(5, batch_size=2, rank=1, world_size=2))
        [[3, 4]]
    """

    def share(self) -> range:
        """This rank's items."""
        return range(min(super().share().start, self.num_items), min(super().share().stop, self.num_items))
