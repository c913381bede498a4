"""What goes through the partitions of a caption set: this process, or something that has many machines.

Whatever the engine, every record is looked at by the same functions, and what they find is put together in the order of
the partitions; so the result is the same.
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
    """Applies functions to partitions, and finds near duplicates over all of them."""

    @abstractmethod
    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Give the result of every item, in the order of the items, without holding all of them at once.

        Args:
            function: Of one item alone; it may be sent to another process.
            items: Small: partitions say where rows lie, they do not hold them.
        """

    @abstractmethod
    def find_near_duplicates(self, near: NearDuplicates, partitions: Sequence[Partition]) -> Ints:
        """Give the numbers of the rows that say nearly the same as an earlier one that stays, ascending.

        Blank captions are no duplicates of anything.
        """


class OneProcess(CaptionEngine):
    """Goes through the partitions one after the other; near duplicates are looked for in memory.

    Example:
        >>> list(OneProcess().map(len, ["a fox", "two dogs"]))
        [5, 8]
    """

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Go through them."""
        return map(function, items)

    def find_near_duplicates(self, near: NearDuplicates, partitions: Sequence[Partition]) -> Ints:
        """Judge all captions at once."""
        found = [
            (first + offset, caption)
            for partition in partitions
            for first, rows in partition.read(["caption"])
            for offset, caption in enumerate(list_captions(rows))
            if caption
        ]
        return np.asarray([found[place][0] for place in near.find_rejected([text for _, text in found])], np.int64)
