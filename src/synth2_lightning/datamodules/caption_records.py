"""Records to synthesize images for: single captions, or all captions of one image together."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synth2_lightning.interfaces import CaptionSource
from synth2_lightning.types import CaptionRecord


class CaptionRecords:
    """Records of a caption source, in the order of their first captions.

    Args:
        captions: Loaded source.
        by_image: Whether a record is an image with all its captions, and not a single caption; this takes 16 bytes of
            memory per caption.

    Raises:
        ValueError: If records are images and a caption names none.
    """

    def __init__(self, captions: CaptionSource, by_image: bool = False) -> None:
        self.captions = captions
        self.by_image = by_image
        self._order: Sequence[int] | NDArray[np.int64] = range(len(captions))
        self._starts: Sequence[int] | NDArray[np.int64] = range(len(captions) + 1)
        if by_image:
            images = _number_images(captions)
            self._order = np.argsort(images, kind="stable")
            self._starts = np.concatenate([[0], np.cumsum(np.bincount(images))])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def key(self, number: int) -> str:
        """Return the key of a record: that of its caption, or of its image."""
        first = self.captions.record(int(self._order[self._starts[number]]))
        return first.image_id if self.by_image else first.key

    def read(self, number: int) -> list[CaptionRecord]:
        """Return the captions of a record, at least one."""
        indices = self._order[self._starts[number] : self._starts[number + 1]]
        return [self.captions.record(int(index)) for index in indices]


def _number_images(captions: CaptionSource) -> NDArray[np.int64]:
    """Return the number of the image of each caption."""
    numbers: dict[str, int] = {}
    labels = np.empty(len(captions), np.int64)
    for index in range(len(captions)):
        record = captions.record(index)
        if not record.image_id:
            raise ValueError(
                f"The caption {record.key!r} of {captions.name!r} has no image id; expected one for every caption with "
                "by_image. Set the source's image_id_column, use PhotoCaptions, or set by_image to false."
            )
        labels[index] = numbers.setdefault(record.image_id, len(numbers))
    return labels
