"""Captions to synthesize images from, each with a seed of its own."""

import hashlib
from collections.abc import Sequence
from typing import Any

from synth2_lightning.datamodules.predict import PredictDataModule
from synth2_lightning.interfaces import CaptionSource
from synth2_lightning.io.fingerprints import fingerprint_texts
from synth2_lightning.types import CaptionBatch, SampleInfo


def record_seed(seed: int, key: str) -> int:
    """Seed of a record, from 0 to 2**63 - 1: a function of these two, so ranks, order and batches change no image.

    Example:
        >>> record_seed(0, "7") == record_seed(0, "7") != record_seed(1, "7")
        True
    """
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


class CaptionDataModule(PredictDataModule[int, CaptionBatch]):
    """Captions for ``synth2 predict`` to synthesize images from, each once over all ranks.

    The first image of a caption has the caption's key, the others ``KEY~1``, ``KEY~2`` and so on: a folder of shards
    may be given more images per caption later, and makes only those that it lacks.

    Args:
        captions: Where they come from.
        batch_size: Captions per step and rank; it changes no image.
        seed: What the seeds of all records come from.
        num_per_caption: How many images are made of every caption.

    Raises:
        ValueError: If a number is below one.

    Example:
        >>> from synth2_lightning.sources.caption_table import CaptionTable
        >>> CaptionDataModule(CaptionTable("captions.jsonl"), batch_size=256).batch_size
        256
    """

    other_stages = (
        "Its captions have no images yet: make them with `synth2 predict`, and train on the shards with a "
        "SyntheticDataModule."
    )

    def __init__(self, captions: CaptionSource, batch_size: int = 64, seed: int = 0, num_per_caption: int = 1) -> None:
        super().__init__(batch_size)
        if num_per_caption < 1:
            raise ValueError(f"CaptionDataModule got num_per_caption={num_per_caption}; expected 1 or more.")
        self.captions = captions
        self.seed = seed
        self.num_per_caption = num_per_caption
        self._places: dict[str, int] = {}

    def provenance(self) -> dict[str, Any]:
        """Give what decides the images besides captions and generator, and whether an evaluation split does."""
        return {"seed": self.seed, "is_evaluation": self.captions.is_evaluation}

    def list_items(self) -> range:
        """Load the captions, and number them; they come through once per image that is made of each.

        Raises:
            ValueError: If keys look like those of further images of another caption.
        """
        self.captions.load()
        self._places = {}
        self._check_keys()
        return range(self.num_per_caption * len(self.captions))

    def name_items(self, items: Sequence[int]) -> list[tuple[str, str]]:
        """Return source and key of images."""
        keys = [self.captions.record(index).key for index in range(len(self.captions))]
        return [(self.captions.name, copy_key(keys[item % len(keys)], item // len(keys))) for item in items]

    def read(self, items: Sequence[int]) -> CaptionBatch:
        """Read captions."""
        records = [self.captions.record(item % len(self.captions)) for item in items]
        copies = [item // len(self.captions) for item in items]
        keys = [copy_key(record.key, copy) for record, copy in zip(records, copies, strict=True)]
        return CaptionBatch(
            captions=tuple(record.caption for record in records),
            samples=tuple(
                SampleInfo(key, self.captions.name, record.class_name, record_seed(self.seed, key))
                for key, record in zip(keys, records, strict=True)
            ),
        )

    def fingerprint_inputs(self, records: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return fingerprints of the captions, with their class names, that records are made from."""
        if not self._places:
            self._places = {self.captions.record(index).key: index for index in range(len(self.captions))}
        places = self._places
        return [
            self._fingerprint(places.get(key, places.get(_original_key(key)))) if source == self.captions.name else None
            for source, key in records
        ]

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
                    f"The key {key!r} of captions {self.captions.name!r} holds '~', which numbers the images of a "
                    f"caption where num_per_caption is above 1 (it is {self.num_per_caption}). Expected keys without "
                    "it: rename them, name another key column, or make one image per caption."
                )


def copy_key(key: str, copy: int) -> str:
    """Key of one of the images of a caption.

    Example:
        >>> copy_key("7", 0), copy_key("7", 1)
        ('7', '7~1')
    """
    return f"{key}~{copy}" if copy else key


def _original_key(key: str) -> str:
    original, _, copy = key.rpartition("~")
    return original if copy.isdecimal() else key
