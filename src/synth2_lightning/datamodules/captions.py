"""Captions to synthesise pictures from, each with a seed of its own."""

import hashlib
from collections.abc import Container, Iterator, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule

from synth2_lightning.datamodules.sampling import PredictionSampler
from synth2_lightning.fingerprints import fingerprint_texts
from synth2_lightning.interfaces import CaptionSource
from synth2_lightning.types import CaptionBatch


def record_seed(seed: int, key: str) -> int:
    """Seed of a record, from 0 to 2**63 - 1: a function of these two, so ranks, order and batches change no picture.

    Example:
        >>> record_seed(0, "7") == record_seed(0, "7") != record_seed(1, "7")
        True
    """
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


class CaptionBatches:
    """The batches of one rank, to be gone through once.

    No ``DataLoader``: reading captions is no work that a worker could take over, and what is no loader Lightning
    leaves as it is.

    Args:
        captions: Loaded.
        items: Numbers of the records of all ranks; ``captions`` come through once per picture that is made of each.
        sampler: Deals the items out.
        seed: What the seeds of all records come from.
    """

    def __init__(self, captions: CaptionSource, items: Sequence[int], sampler: PredictionSampler, seed: int) -> None:
        self.captions = captions
        self.items = items
        self._sampler = sampler
        self.seed = seed

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._sampler)

    def __iter__(self) -> Iterator[CaptionBatch]:
        """Give the batches."""
        for positions in self._sampler:
            items = [self.items[position] for position in positions]
            records = [self.captions.record(item % len(self.captions)) for item in items]
            copies = [item // len(self.captions) for item in items]
            keys = tuple(copy_key(record.key, copy) for record, copy in zip(records, copies, strict=True))
            yield CaptionBatch(
                captions=tuple(record.caption for record in records),
                keys=keys,
                sources=(self.captions.name,) * len(items),
                class_names=tuple(record.class_name for record in records),
                seeds=tuple(record_seed(self.seed, key) for key in keys),
            )


class CaptionDataModule(LightningDataModule):
    """Captions for ``synth2 predict`` to synthesise pictures from, each once over all ranks.

    The first picture of a caption has the caption's key, the others ``KEY~1``, ``KEY~2`` and so on: a folder of shards
    may be given more pictures per caption later, and makes only those that it lacks.

    Args:
        captions: Where they come from.
        batch_size: Captions per step and rank; it changes no picture.
        seed: What the seeds of all records come from.
        num_per_caption: How many pictures are made of every caption.

    Raises:
        ValueError: If a number is below one.

    Example:
        >>> from synth2_lightning.sources.caption_table import CaptionTable
        >>> CaptionDataModule(CaptionTable("captions.jsonl"), batch_size=256).batch_size
        256
    """

    def __init__(self, captions: CaptionSource, batch_size: int = 64, seed: int = 0, num_per_caption: int = 1) -> None:
        super().__init__()
        # More ranks than captions: those without one have nothing to do, and that is no error.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        for name, value in (("batch_size", batch_size), ("num_per_caption", num_per_caption)):
            if value < 1:
                raise ValueError(f"CaptionDataModule got {name}={value}; expected 1 or more.")
        self.captions = captions
        self.batch_size = batch_size
        self.seed = seed
        self.num_per_caption = num_per_caption
        self._items: Sequence[int] = ()
        self._places: dict[str, int] = {}

    def provenance(self) -> dict[str, Any]:
        """Give what decides the pictures besides captions and generator, and whether an evaluation split does."""
        return {"seed": self.seed, "is_evaluation": self.captions.is_evaluation}

    def setup(self, stage: str) -> None:
        """Read the captions.

        Raises:
            ValueError: If the run is no prediction, or keys look like those of further pictures of another caption.
        """
        if stage != "predict":
            raise ValueError(
                f"CaptionDataModule has nothing for {stage!r}: its captions have no pictures yet. Make them with "
                "`synth2 predict`, and learn from the shards with a SyntheticDataModule."
            )
        self.captions.load()
        self._places = {}
        self._check_keys()
        self._items = range(self.num_per_caption * len(self.captions))

    def leave_out(self, records: Container[tuple[str, str]]) -> None:
        """Leave records, named by source and key, out of the prediction that was set up."""
        keys = [self.captions.record(index).key for index in range(len(self.captions))]
        self._items = [
            item
            for item in self._items
            if (self.captions.name, copy_key(keys[item % len(keys)], item // len(keys))) not in records
        ]

    def fingerprint_inputs(self, records: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return fingerprints of the captions, with their class names, that records are made from."""
        if not self._places:
            self._places = {self.captions.record(index).key: index for index in range(len(self.captions))}
        places = self._places
        return [
            self._fingerprint(places.get(key, places.get(_original_key(key)))) if source == self.captions.name else None
            for source, key in records
        ]

    def predict_dataloader(self) -> CaptionBatches:
        """Give this rank's captions."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = PredictionSampler(len(self._items), self.batch_size, rank, world_size)
        return CaptionBatches(self.captions, self._items, sampler, self.seed)

    def _fingerprint(self, index: int | None) -> str:
        if index is None:
            return ""
        record = self.captions.record(index)
        return fingerprint_texts([record.caption, record.class_name])

    def _check_keys(self) -> None:
        if self.num_per_caption == 1:
            return
        for index in range(len(self.captions)):
            if "~" in (key := self.captions.record(index).key):
                raise ValueError(
                    f"The key {key!r} of captions {self.captions.name!r} holds '~', which numbers the pictures of a "
                    f"caption where num_per_caption is above 1 (it is {self.num_per_caption}). Expected keys without "
                    "it: rename them, name another key column, or make one picture per caption."
                )


def copy_key(key: str, copy: int) -> str:
    """Key of one of the pictures of a caption.

    Example:
        >>> copy_key("7", 0), copy_key("7", 1)
        ('7', '7~1')
    """
    return f"{key}~{copy}" if copy else key


def _original_key(key: str) -> str:
    original, _, copy = key.rpartition("~")
    return original if copy.isdecimal() else key
