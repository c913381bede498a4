"""Datamodule of captions to synthesize images from, each with its own seed."""

import hashlib
from collections.abc import Sequence
from typing import Any

from synth2_lightning.datamodules.predict import PredictDataModule
from synth2_lightning.interfaces import CaptionSource
from synth2_lightning.io.fingerprints import fingerprint_texts
from synth2_lightning.types import CaptionBatch, SampleInfo


def record_seed(seed: int, key: str) -> int:
    """Return the seed of a record, from 0 to 2**63 - 1; it is independent of ranks, order and batch size.

    Example:
        >>> record_seed(0, "7") == record_seed(0, "7") != record_seed(1, "7")
        True
    """
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


class CaptionDataModule(PredictDataModule[int, CaptionBatch]):
    """Captions for ``synth2 predict`` to synthesize images from, each once over all ranks.

    The first image of a caption has the caption's key, further ones ``KEY~1``, ``KEY~2`` and so on: a later run with
    more images per caption creates only the missing ones.

    Args:
        captions: Source of the captions.
        batch_size: Captions per step and rank; it does not change the images.
        seed: Base seed of all records.
        num_per_caption: Number of images per caption.

    Raises:
        ValueError: If a number is below 1.
    """

    other_stages = (
        "Its captions have no images: create them with `synth2 predict`, and train on the shards with a "
        "SyntheticDataModule."
    )

    def __init__(self, captions: CaptionSource, batch_size: int = 64, seed: int = 0, num_per_caption: int = 1) -> None:
        super().__init__(batch_size)
        if num_per_caption < 1:
            raise ValueError(f"CaptionDataModule got num_per_caption={num_per_caption}; expected 1 or more.")
        self.captions = captions
        self.seed = seed
        self.num_per_caption = num_per_caption
        self._indices: dict[str, int] = {}

    def provenance(self) -> dict[str, Any]:
        """Return the seed, and whether the captions are of an evaluation split."""
        return {"seed": self.seed, "is_evaluation": self.captions.is_evaluation}

    def list_items(self) -> range:
        """Load the captions and return one number per image; each caption occurs ``num_per_caption`` times.

        Raises:
            ValueError: If a key contains ``~`` and there are several images per caption.
        """
        self.captions.load()
        self._indices = {}
        if self.num_per_caption > 1:
            self._check_keys()
        return range(self.num_per_caption * len(self.captions))

    def name_items(self, items: Sequence[int]) -> list[tuple[str, str]]:
        """Return source and key of each image."""
        keys = [self.captions.record(index).key for index in range(len(self.captions))]
        return [(self.captions.name, _copy_key(keys[item % len(keys)], item // len(keys))) for item in items]

    def read(self, items: Sequence[int]) -> CaptionBatch:
        """Return a batch of captions."""
        records = [self.captions.record(item % len(self.captions)) for item in items]
        copies = [item // len(self.captions) for item in items]
        keys = [_copy_key(record.key, copy) for record, copy in zip(records, copies, strict=True)]
        return CaptionBatch(
            captions=tuple(record.caption for record in records),
            samples=tuple(
                SampleInfo(key, self.captions.name, record.class_name, record_seed(self.seed, key))
                for key, record in zip(keys, records, strict=True)
            ),
        )

    def fingerprint_inputs(self, records: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return fingerprints of the captions and class names of records."""
        if not self._indices:
            self._indices = {self.captions.record(index).key: index for index in range(len(self.captions))}
        indices = self._indices
        return [
            self._fingerprint(indices.get(key, indices.get(_original_key(key))))
            if source == self.captions.name
            else None
            for source, key in records
        ]

    def _fingerprint(self, index: int | None) -> str:
        if index is None:
            return ""
        record = self.captions.record(index)
        return fingerprint_texts([record.caption, record.class_name])

    def _check_keys(self) -> None:
        for index in range(len(self.captions)):
            if "~" in (key := self.captions.record(index).key):
                raise ValueError(
                    f"The key {key!r} of captions {self.captions.name!r} contains '~', which numbers the images of a "
                    f"caption if num_per_caption is above 1 (it is {self.num_per_caption}). Expected keys without it: "
                    "rename them, set another key column, or create one image per caption."
                )


def _copy_key(key: str, copy: int) -> str:
    return f"{key}~{copy}" if copy else key


def _original_key(key: str) -> str:
    original, _, copy = key.rpartition("~")
    return original if copy.isdecimal() else key
