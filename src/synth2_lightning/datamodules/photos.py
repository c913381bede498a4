"""Datasets of photos: decoded and cropped in data loader workers, with replacement of unreadable images."""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from synth2_lightning.datamodules.bad_images import check_num_bad
from synth2_lightning.datamodules.pairs import BatchDataset, PairIndex
from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.sources.images import center_crop
from synth2_lightning.types import ImageTextBatch, Pixels, SampleInfo


class ImageReader:
    """Reads images of a source into one tensor; an unreadable image is replaced by the next readable one.

    Args:
        source: Loaded source.
        image_size: Height and width in pixels.
        max_bad_images: Maximum number of unreadable images per batch.
    """

    def __init__(self, source: ImageTextSource, image_size: int, max_bad_images: int) -> None:
        self.source = source
        self.image_size = image_size
        self.max_bad_images = max_bad_images

    def read(self, indices: Sequence[int], fallbacks: Sequence[int] = ()) -> tuple[Pixels, list[int], tuple[str, ...]]:
        """Read images of shape (batch, 3, image_size, image_size).

        Args:
            indices: Indices of the images.
            fallbacks: Indices to try first instead of an unreadable image; then its successors in the source.

        Returns:
            The images, their indices after replacement, and the names of unreadable images with reasons.

        Raises:
            ValueError: If too many images are unreadable.
        """
        values = np.empty((len(indices), 3, self.image_size, self.image_size), dtype=np.uint8)
        bad: dict[str, None] = {}
        found = []
        for row, index in enumerate(indices):
            successors = ((index + distance) % len(self.source) for distance in range(1, len(self.source)))
            found.append(self._read_first(values[row], chain((index,), fallbacks, successors), bad))
        return Pixels(torch.from_numpy(values)), found, tuple(bad)

    def _read_first(self, out: NDArray[np.uint8], candidates: Iterable[int], bad: dict[str, None]) -> int:
        for index in candidates:
            try:
                square = center_crop(self.source.image(index), self.image_size)
            except (OSError, MemoryError) as error:
                bad[f"{self.source.name}/{self.source.key(index)}: {str(error) or type(error).__name__}"] = None
                check_num_bad(bad.keys(), self.max_bad_images)
                continue
            out[:] = np.asarray(square).transpose(2, 0, 1)
            return index
        raise ValueError(
            f"None of the {len(self.source)} images of source {self.source.name!r} can be read; the first error is: "
            f"{next(iter(bad))}. Expected at least one readable image; check the arguments with its image paths."
        )


class PhotoPairs(BatchDataset):
    """Training pairs of a photo and one of its captions."""

    def __init__(self, reader: ImageReader) -> None:
        self.reader = reader
        self.source = reader.source
        self._pairs = PairIndex(self.source.count_captions())

    def __len__(self) -> int:
        return len(self._pairs)

    def fingerprint(self) -> str:
        """Return the checksum of the source."""
        return self.source.fingerprint()

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        """Return a batch of pairs; a replaced image has one of its own captions.

        Raises:
            ValueError: If too many images are unreadable, or some images have prompts and others have none.
        """
        images, ordinals = self._pairs.locate(indices)
        pixels, found, skipped = self.reader.read(images)
        captions = [self.source.captions(index) for index in found]
        return ImageTextBatch(
            image=pixels,
            captions=tuple(texts[ordinal % len(texts)] for texts, ordinal in zip(captions, ordinals, strict=True)),
            samples=_list_samples(self.source, found),
            references=tuple(captions),
            prompts=_list_prompts(self.source, found),
            skipped=skipped,
        )

    def image_captions(self, indices: Sequence[int]) -> list[tuple[str, ...]]:
        """Return all captions of each different photo among some pairs."""
        return [self.source.captions(index) for index in self._pairs.images(indices)]


class Photos(BatchDataset):
    """Photos with all their captions, for evaluation and prediction.

    An unreadable image is replaced by one of the same batch if possible: metrics and writers drop repeated keys.
    """

    def __init__(self, reader: ImageReader) -> None:
        self.reader = reader
        self.source = reader.source

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        """Return a batch of images with all their captions; the loss is computed on the first caption.

        Raises:
            ValueError: If too many images are unreadable, or some images have prompts and others have none.
        """
        pixels, found, skipped = self.reader.read(indices, fallbacks=indices)
        references = tuple(self.source.captions(index) for index in found)
        return ImageTextBatch(
            image=pixels,
            captions=tuple(texts[0] for texts in references),
            samples=_list_samples(self.source, found),
            references=references,
            prompts=_list_prompts(self.source, found),
            skipped=skipped,
        )


def _list_samples(source: ImageTextSource, indices: Sequence[int]) -> tuple[SampleInfo, ...]:
    return tuple(SampleInfo(source.key(index), source.name) for index in indices)


def _list_prompts(source: ImageTextSource, indices: Sequence[int]) -> tuple[str, ...]:
    prompts = [source.prompt(index) for index in indices]
    present = tuple(prompt for prompt in prompts if prompt is not None)
    if present and len(present) != len(prompts):
        missing = source.key(indices[prompts.index(None)])
        raise ValueError(
            f"Source {source.name!r} has prompts for {len(present)} of {len(prompts)} images and none for {missing!r}; "
            "expected prompts for all of its images, or for none. Split it into two sources."
        )
    return present
