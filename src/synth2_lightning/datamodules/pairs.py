"""Datasets indexed by whole batches, and an index of image-caption pairs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Generic
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from typing_extensions import TypeVar  # that of Python 3.11 has no default

from synth2_lightning.types import ImageTextBatch, SampleBatch

Batch = TypeVar("Batch", bound=SampleBatch, default=ImageTextBatch)


class BatchDataset(Dataset[Batch], ABC, Generic[Batch]):
    """Dataset that is indexed by all items of a batch, so that it can read them together.

    Attributes:
        num_variants: Number of variants of each item, such as an image and its mirror image: the items are those of the
            first variant, then those of the second, and so on, each in the same order.
    """

    num_variants: int = 1

    @abstractmethod
    def __len__(self) -> int:
        """Number of items."""

    @abstractmethod
    def read(self, indices: Sequence[int]) -> Batch:
        """Return the batch of some items."""

    def fingerprint(self) -> str:
        """Return a checksum of the items, compared when training resumes; by default their number."""
        return str(len(self))

    def image_captions(self, indices: Sequence[int]) -> list[tuple[str, ...]]:
        """Return all captions of each different image among some items; reads no images."""
        raise NotImplementedError(f"{type(self).__name__} has no captions without images; override image_captions().")

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


class Subset(BatchDataset[Batch]):
    """Subset of a dataset: the items with the given indices, in their order."""

    def __init__(self, dataset: BatchDataset[Batch], items: Sequence[int] | NDArray[np.int64]) -> None:
        self.dataset = dataset
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def fingerprint(self) -> str:
        """Return a checksum of the dataset and the indices."""
        items = np.asarray(self.items, dtype=np.int64).tobytes()
        return f"{self.dataset.fingerprint()}[{crc32(items):08x}]"

    def read(self, indices: Sequence[int]) -> Batch:
        """Return the batch of some items."""
        return self.dataset.read(self._select(indices))

    def image_captions(self, indices: Sequence[int]) -> list[tuple[str, ...]]:
        """Return all captions of each different image among some items."""
        return self.dataset.image_captions(self._select(indices))

    def _select(self, indices: Sequence[int]) -> list[int]:
        return [int(self.items[index]) for index in indices]


class WeightedPairs(BatchDataset):
    """Dataset with a weight of the loss of each item."""

    def __init__(self, dataset: BatchDataset, weights: NDArray[np.float32]) -> None:
        self.dataset = dataset
        self.weights = weights

    def __len__(self) -> int:
        return len(self.dataset)

    def fingerprint(self) -> str:
        """Return a checksum of the dataset and the weights."""
        return f"{self.dataset.fingerprint()}*{crc32(self.weights.tobytes()):08x}"

    def image_captions(self, indices: Sequence[int]) -> list[tuple[str, ...]]:
        """Return all captions of each different image among some items."""
        return self.dataset.image_captions(indices)

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        """Return the batch of some items, with their weights."""
        return replace(self.dataset.read(indices), weights=torch.from_numpy(self.weights[list(indices)]))


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

    def images(self, pairs: Sequence[int]) -> list[int]:
        """Return the different images of pairs, in ascending order."""
        return sorted(set(self.locate(pairs)[0]))
