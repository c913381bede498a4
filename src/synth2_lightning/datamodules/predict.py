"""Base class of the datamodules for ``synth2 predict`` only."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Sequence
from typing import ClassVar, Generic, TypeVar

from lightning.pytorch import LightningDataModule

from synth2_lightning.datamodules.sampling import PredictionBatchSampler

Item = TypeVar("Item")
Batch = TypeVar("Batch")


class PredictBatches(Generic[Item, Batch]):
    """Iterable over the batches of one rank.

    It is not a ``DataLoader``, because texts and memory-mapped rows need no workers. Lightning does not modify other
    iterables.

    Args:
        items: Items of all ranks.
        sampler: Yields the positions of this rank's items, batch by batch.
        read: Returns the batch of some items.
    """

    def __init__(
        self, items: Sequence[Item], sampler: PredictionBatchSampler, read: Callable[[Sequence[Item]], Batch]
    ) -> None:
        self._items = items
        self._sampler = sampler
        self._read = read

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Batch]:
        for positions in self._sampler:
            yield self._read([self._items[position] for position in positions])


class PredictDataModule(LightningDataModule, ABC, Generic[Item, Batch]):
    """Datamodule of the records of ``synth2 predict``, each once over all ranks, without skipped ones.

    Subclasses list the items, name the record of each item, and read batches of items.

    Attributes:
        other_stages: Advice in the error for stages other than ``predict``.

    Args:
        batch_size: Records per step and rank.

    Raises:
        ValueError: If the batch size is below 1.
    """

    other_stages: ClassVar[str]

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        # With more ranks than records, some ranks have no batch; that is not an error.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        if batch_size < 1:
            raise ValueError(f"{type(self).__name__} got batch_size={batch_size}; expected 1 or more.")
        self.batch_size = batch_size
        self._items: Sequence[Item] = ()

    @abstractmethod
    def list_items(self) -> Sequence[Item]:
        """Load the inputs and return the items of all ranks."""

    @abstractmethod
    def name_items(self, items: Sequence[Item]) -> list[tuple[str, str]]:
        """Return source and key of the record of each item."""

    @abstractmethod
    def read(self, items: Sequence[Item]) -> Batch:
        """Return the batch of some items."""

    def setup(self, stage: str) -> None:
        """List the items.

        Raises:
            ValueError: If the stage is not ``predict``.
        """
        if stage != "predict":
            raise ValueError(
                f"{type(self).__name__} has no data for {stage!r}; expected `synth2 predict`. {self.other_stages}"
            )
        self._items = self.list_items()

    def skip(self, records: Container[tuple[str, str]]) -> None:
        """Skip records, given as pairs of source and key, in the prediction; after ``setup("predict")``."""
        names = self.name_items(self._items)
        self._items = [item for item, name in zip(self._items, names, strict=True) if name not in records]

    def predict_dataloader(self) -> PredictBatches[Item, Batch]:
        """Return the batches of this rank."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = PredictionBatchSampler(len(self._items), self.batch_size, rank, world_size)
        return PredictBatches(self._items, sampler, self.read)
