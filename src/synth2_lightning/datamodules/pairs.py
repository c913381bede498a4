"""Datasets indexed by whole batches, and an index of image-caption pairs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset
from typing_extensions import TypeVar  # that of Python 3.11 has no default

from synth2_lightning.types import ImageTextBatch, SampleBatch

Batch = TypeVar("Batch", bound=SampleBatch, default=ImageTextBatch)


class BatchDataset(Dataset[Batch], ABC, Generic[Batch]):
    """Dataset that is indexed by all items of a batch, so that it can read them together."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of items."""

    @abstractmethod
    def read(self, indices: Sequence[int]) -> Batch:
        """Return the batch of some items."""

    def fingerprint(self) -> str:
        """Return a checksum of the items, compared when training resumes; by default their number."""
        return str(len(self))

    def __getitem__(self, indices: int | Sequence[int]) -> Batch:
        """Return the batch of some items.

        Raises:
            TypeError: If the index is a single item, because the sampler was replaced.
        """
        if isinstance(indices, int):
            raise TypeError(
                f"{type(self).__name__} was indexed by the single item {indices}; expected a list. The sampler was "
                "replaced: instead of `--trainer.overfit_batches`, set a `limit` on the source."
            )
        return self.read(indices)


class Selection(BatchDataset[Batch]):
    """Subset of a dataset: the items with the given indices, in their order."""

    def __init__(self, dataset: BatchDataset[Batch], items: Sequence[int] | NDArray[np.int64]) -> None:
        self.dataset = dataset
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def fingerprint(self) -> str:
        """Return a checksum of the dataset and the selection."""
        items = np.asarray(self.items, dtype=np.int64).tobytes()
        return f"{self.dataset.fingerprint()}[{crc32(items):08x}]"

    def read(self, indices: Sequence[int]) -> Batch:
        """Return the batch of some items."""
        return self.dataset.read([int(self.items[index]) for index in indices])


class PairIndex:
    """Index of the pairs of images and captions, in the order of the images.

    Args:
        num_captions: Number of captions of each image.

    Example:
        >>> PairIndex(np.array([2, 0, 3])).locate([0, 1, 2, 4])
        ([0, 0, 2, 2], [0, 1, 0, 2])
    """

    def __init__(self, num_captions: NDArray[np.int64]) -> None:
        self._starts = np.concatenate([[0], np.cumsum(num_captions)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def locate(self, pairs: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the image of each pair, and the number of its caption among those of the image."""
        images = np.searchsorted(self._starts, np.asarray(pairs), side="right") - 1
        captions = np.asarray(pairs) - self._starts[images]
        return images.tolist(), captions.tolist()
