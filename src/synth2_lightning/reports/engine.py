"""Execution engines for caption sets, local or distributed.

All engines apply the same functions to partitions and combine the results in partition order, so results are equal.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from synth2_lightning.filters.duplicates import NearDuplicates
from synth2_lightning.metrics.ngrams import Ints
from synth2_lightning.reports.partitions import Partition, list_captions

Item = TypeVar("Item")
Result = TypeVar("Result")


class CaptionEngine(ABC):
    """Base class of engines that map functions over partitions and find near duplicates across them."""

    @abstractmethod
    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Lazily yield the result of each item, in input order.

        Args:
            function: Function of one item; it is pickled if the engine is distributed.
            items: Small objects, such as partitions, which refer to rows on disk.
        """

    @abstractmethod
    def find_near_duplicates(self, near: NearDuplicates, partitions: Sequence[Partition]) -> Ints:
        """Return the sorted row numbers of non-blank captions that are near duplicates of an earlier kept one."""


class SingleProcessEngine(CaptionEngine):
    """Processes partitions sequentially; near duplicates are found in memory.

    Example:
        >>> list(SingleProcessEngine().map(len, ["a fox", "two dogs"]))
        [5, 8]
    """

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Map sequentially."""
        return map(function, items)

    def find_near_duplicates(self, near: NearDuplicates, partitions: Sequence[Partition]) -> Ints:
        """Compare all captions in memory."""
        found = [
            (first + offset, caption)
            for partition in partitions
            for first, rows in partition.read(["caption"])
            for offset, caption in enumerate(list_captions(rows))
            if caption
        ]
        return np.asarray([found[index][0] for index in near.find_rejected([text for _, text in found])], np.int64)
