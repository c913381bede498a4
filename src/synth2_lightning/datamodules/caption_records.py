"""Records to synthesize images for: single captions, or scenes with all their captions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synth2_lightning.interfaces import CaptionSource
from synth2_lightning.types import CaptionRecord


class CaptionRecords:
    """Records of a caption source, in the order of their first captions.

    Args:
        captions: Loaded source.
        by_scene: Whether a record is a scene with all its captions, and not a single caption; this takes 16 bytes of
            memory per caption.

    Raises:
        ValueError: If records are scenes and a caption has none.
    """

    def __init__(self, captions: CaptionSource, by_scene: bool = False) -> None:
        self.captions = captions
        self.by_scene = by_scene
        self._order: Sequence[int] | NDArray[np.int64] = range(len(captions))
        self._starts: Sequence[int] | NDArray[np.int64] = range(len(captions) + 1)
        if by_scene:
            scenes = _number_scenes(captions)
            self._order = np.argsort(scenes, kind="stable")
            self._starts = np.concatenate([[0], np.cumsum(np.bincount(scenes))])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def key(self, number: int) -> str:
        """Return the key of a record: that of its caption, or of its scene."""
        first = self.captions.record(int(self._order[self._starts[number]]))
        return first.scene if self.by_scene else first.key

    def read(self, number: int) -> list[CaptionRecord]:
        """Return the captions of a record, at least one."""
        indices = self._order[self._starts[number] : self._starts[number + 1]]
        return [self.captions.record(int(index)) for index in indices]


def _number_scenes(captions: CaptionSource) -> NDArray[np.int64]:
    """Return the number of the scene of each caption."""
    numbers: dict[str, int] = {}
    labels = np.empty(len(captions), np.int64)
    for index in range(len(captions)):
        record = captions.record(index)
        if not record.scene:
            raise ValueError(
                f"The caption {record.key!r} of {captions.name!r} has no scene; expected one for every caption with "
                "by_scene. Set the source's scene_column, use PhotoCaptions, or set by_scene to false."
            )
        labels[index] = numbers.setdefault(record.scene, len(numbers))
    return labels
