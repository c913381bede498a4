"""Datamodule of captions to synthesize images from, each with its own seed."""

import hashlib
from collections.abc import Sequence
from typing import Any

from synth2_lightning.datamodules.caption_records import CaptionRecords
from synth2_lightning.datamodules.draws import copy_key, original_key
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

    With ``by_image``, all captions of an image are one record, with the id of the image as its key. A captioner learns
    each of them, as with photos.

    Args:
        captions: Source of the captions.
        batch_size: Images per step and rank; it does not change the images.
        seed: Base seed of all records.
        num_per_caption: Number of images per record.
        by_image: Whether a record has all captions of an image: of a photo (``PhotoCaptions``), or with the same
            value in ``image_id_column`` (``CaptionTable``).
        num_conditions: Maximum number of captions of a record that an image is generated from; ``None`` uses all.
            Further images of the record are generated from its next captions, cyclically.

    Raises:
        ValueError: If a number is below 1.
    """

    other_stages = (
        "Its captions have no images: create them with `synth2 predict`, and train on the shards with a "
        "SyntheticDataModule."
    )

    def __init__(
        self,
        captions: CaptionSource,
        batch_size: int = 64,
        seed: int = 0,
        num_per_caption: int = 1,
        by_image: bool = False,
        num_conditions: int | None = 1,
    ) -> None:
        super().__init__(batch_size)
        for name, number in (("num_per_caption", num_per_caption), ("num_conditions", num_conditions)):
            if number is not None and number < 1:
                raise ValueError(f"CaptionDataModule got {name}={number}; expected 1 or more.")
        self.captions = captions
        self.seed = seed
        self.num_per_caption = num_per_caption
        self.by_image = by_image
        self.num_conditions = num_conditions
        self._records: CaptionRecords | None = None
        self._numbers: dict[str, int] = {}

    def provenance(self) -> dict[str, Any]:
        """Return the settings that determine the images, and whether the captions are of an evaluation split."""
        return {
            "seed": self.seed,
            "by_image": self.by_image,
            "num_conditions": self.num_conditions,
            "is_evaluation": self.captions.is_evaluation,
        }

    def list_items(self) -> range:
        """Load the captions and return one number per image; each record occurs ``num_per_caption`` times.

        Raises:
            ValueError: If a key contains ``~`` and there are several images per caption, or a caption has no image id.
        """
        self.captions.load()
        self._records = CaptionRecords(self.captions, self.by_image)
        self._numbers = {}
        if self.num_per_caption > 1:
            self._check_keys()
        return range(self.num_per_caption * len(self._records))

    def name_items(self, items: Sequence[int]) -> list[tuple[str, str]]:
        """Return source and key of each image."""
        keys = [self.records.key(number) for number in range(len(self.records))]
        return [(self.captions.name, copy_key(keys[item % len(keys)], item // len(keys))) for item in items]

    def read(self, items: Sequence[int]) -> CaptionBatch:
        """Return a batch of captions."""
        numbers = [item % len(self.records) for item in items]
        copies = [item // len(self.records) for item in items]
        records = [self.records.read(number) for number in numbers]
        keys = [copy_key(self.records.key(number), copy) for number, copy in zip(numbers, copies, strict=True)]
        captions = tuple(tuple(each.caption for each in record) for record in records)
        return CaptionBatch(
            captions=captions,
            conditions=tuple(self._choose(texts, copy) for texts, copy in zip(captions, copies, strict=True)),
            samples=tuple(
                SampleInfo(key, self.captions.name, record[0].class_name, record_seed(self.seed, key))
                for key, record in zip(keys, records, strict=True)
            ),
        )

    def fingerprint_inputs(self, records: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return fingerprints of the captions and class names of records."""
        if not self._numbers:
            self._numbers = {self.records.key(number): number for number in range(len(self.records))}
        numbers = self._numbers
        return [
            self._fingerprint(numbers.get(key, numbers.get(original_key(key))))
            if source == self.captions.name
            else None
            for source, key in records
        ]

    @property
    def records(self) -> CaptionRecords:
        """Records; available after ``setup("predict")``."""
        if self._records is None:
            raise RuntimeError('The captions were read before setup(); call setup("predict") first.')
        return self._records

    def _choose(self, texts: tuple[str, ...], copy: int) -> tuple[str, ...]:
        """Return the captions that one of the images of a record is generated from."""
        num = min(self.num_conditions or len(texts), len(texts))
        return tuple(texts[(copy * num + offset) % len(texts)] for offset in range(num))

    def _fingerprint(self, number: int | None) -> str:
        if number is None:
            return ""
        record = self.records.read(number)
        return fingerprint_texts([*(each.caption for each in record), record[0].class_name])

    def _check_keys(self) -> None:
        for number in range(len(self.records)):
            if "~" in (key := self.records.key(number)):
                raise ValueError(
                    f"The key {key!r} of captions {self.captions.name!r} contains '~', which numbers the images of a "
                    f"caption if num_per_caption is above 1 (it is {self.num_per_caption}). Expected keys without it: "
                    "rename them, set another key column, or create one image per caption."
                )
