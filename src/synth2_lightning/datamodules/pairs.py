"""Datasets that are asked for whole batches, and pairs of one picture and one of its captions."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
from torch.utils.data import Dataset

from synth2_lightning.types import ImageTextBatch

Counts = np.ndarray[Any, np.dtype[np.int64]]


class BatchDataset(Dataset[ImageTextBatch], ABC):
    """A dataset that is indexed by all items of a batch at once, so that it may read them together."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of items."""

    @abstractmethod
    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        """Read a batch."""

    def fingerprint(self) -> str:
        """Checksum of what the items are, to compare them when training resumes; by default of their number."""
        return str(len(self))

    def __getitem__(self, indices: int | Sequence[int]) -> ImageTextBatch:
        """Read a batch.

        Raises:
            TypeError: If a sampler other than ours asks for a single item.
        """
        if isinstance(indices, int):
            raise TypeError(
                f"{type(self).__name__} was asked for the single item {indices}; expected a list. Something "
                "replaced the sampler: instead of `--trainer.overfit_batches` give the source a `limit`."
            )
        return self.read(indices)


class Selection(BatchDataset):
    """Some of the items of a dataset.

    Args:
        dataset: Has the items.
        items: Which ones, in their new order.
    """

    def __init__(self, dataset: BatchDataset, items: Sequence[int] | Counts) -> None:
        self.dataset = dataset
        self.items = items

    def __len__(self) -> int:
        """Number of items that are left."""
        return len(self.items)

    def fingerprint(self) -> str:
        """Checksum of the dataset and of the selection."""
        items = np.asarray(self.items, dtype=np.int64).tobytes()
        return f"{self.dataset.fingerprint()}[{crc32(items):08x}]"

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        """Read a batch."""
        return self.dataset.read([int(self.items[index]) for index in indices])


class PairIndex:
    """Numbers the pairs of pictures that have several captions each.

    Args:
        num_captions: Number of captions of every picture.

    Example:
        >>> PairIndex(np.array([2, 0, 3])).locate([0, 1, 2, 4])
        ([0, 0, 2, 2], [0, 1, 0, 2])
    """

    def __init__(self, num_captions: Counts) -> None:
        self._ends = np.cumsum(num_captions)
        self._starts = self._ends - num_captions

    def __len__(self) -> int:
        """Number of pairs."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, pairs: Sequence[int]) -> tuple[list[int], list[int]]:
        """Find the picture of every pair, and which of its captions is meant."""
        pictures = np.searchsorted(self._ends, np.asarray(pairs), side="right")
        captions = np.asarray(pairs) - self._starts[pictures]
        return pictures.tolist(), captions.tolist()
