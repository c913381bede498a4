"""Photographs as batches: read and cut in the data loader's workers, bad ones replaced and named."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from PIL import Image

from synth2_lightning.datamodules.bad_pictures import refuse_too_many
from synth2_lightning.datamodules.pairs import BatchDataset, PairIndex
from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.sources.pictures import keep_middle
from synth2_lightning.types import ImageTextBatch, Pixels

Values = np.ndarray[Any, np.dtype[np.uint8]]


def cut_square(image: Image.Image, size: int) -> Image.Image:
    """Bring the short side to a size (bicubic, with Pillow's anti-aliasing) and cut the middle square out.

    The pixels are those that CLIP's and most of timm's networks were trained on (``Resize`` and ``CenterCrop`` of
    torchvision on Pillow images, which open_clip uses); of a picture that is absurdly long, the middle is taken before.
    A picture of that size already is returned as it is.

    Args:
        image: RGB.
        size: Height and width of the square in pixels.

    Example:
        >>> cut_square(Image.new("RGB", (640, 480)), 224).size
        (224, 224)
    """
    if image.size == (size, size):
        return image
    image = keep_middle(image)
    width, height = image.size
    if width <= height:
        width, height = size, int(size * height / width)
    else:
        width, height = int(size * width / height), size
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


class PictureReader:
    """Reads pictures of a source into one array; a bad one is replaced by the next that can be read.

    Args:
        source: Loaded.
        image_size: Height and width in pixels.
        max_bad_pictures: How many bad ones a batch may meet.
    """

    def __init__(self, source: ImageTextSource, image_size: int, max_bad_pictures: int) -> None:
        self.source = source
        self.image_size = image_size
        self.max_bad_pictures = max_bad_pictures

    def read(self, indices: Sequence[int], spares: Sequence[int] = ()) -> tuple[Pixels, list[int], tuple[str, ...]]:
        """Read pictures.

        Args:
            indices: Which ones.
            spares: Which ones to try first in place of a bad one; after these its successors.

        Returns:
            The pictures; which ones they are; the names of the bad ones, with reasons.

        Raises:
            ValueError: If there are too many bad ones.
        """
        values = np.empty((len(indices), 3, self.image_size, self.image_size), dtype=np.uint8)
        bad: dict[str, None] = {}
        taken = []
        for row, index in enumerate(indices):
            successors = ((index + distance) % len(self.source) for distance in range(1, len(self.source)))
            taken.append(self._read_first(values[row], chain((index,), spares, successors), bad))
        return Pixels(torch.from_numpy(values)), taken, tuple(bad)

    def _read_first(self, into: Values, candidates: Iterable[int], bad: dict[str, None]) -> int:
        for index in candidates:
            try:
                square = cut_square(self.source.picture(index), self.image_size)
            except (OSError, MemoryError) as error:
                bad[f"{self.source.name}/{self.source.key(index)}: {str(error) or type(error).__name__}"] = None
                refuse_too_many(bad.keys(), self.max_bad_pictures)
                continue
            into[:] = np.asarray(square).transpose(2, 0, 1)
            return index
        raise ValueError(
            f"None of the {len(self.source)} pictures of source {self.source.name!r} can be read, the first because: "
            f"{next(iter(bad))}. Expected at least one; look at the arguments that say where its pictures lie."
        )


class PhotographPairs(BatchDataset):
    """Photographs to learn from: every caption makes a pair of its own.

    Args:
        reader: Reads the pictures.
    """

    def __init__(self, reader: PictureReader) -> None:
        self.reader = reader
        self.source = reader.source
        self._pairs = PairIndex(np.array([len(self.source.captions(index)) for index in range(len(self.source))]))

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._pairs)

    def fingerprint(self) -> str:
        """Checksum of the source: keys, captions and prompts, and where files are known their sizes."""
        return self.source.fingerprint()

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        """Read pairs; in place of a bad picture another one comes with a caption of its own.

        Raises:
            ValueError: If there are too many bad pictures, or something is asked about some only.
        """
        pictures, ordinals = self._pairs.locate(indices)
        pixels, taken, skipped = self.reader.read(pictures)
        captions = [self.source.captions(index) for index in taken]
        return ImageTextBatch(
            image=pixels,
            captions=tuple(texts[ordinal % len(texts)] for texts, ordinal in zip(captions, ordinals, strict=True)),
            keys=tuple(self.source.key(index) for index in taken),
            sources=(self.source.name,) * len(taken),
            prompts=_prompts(self.source, taken),
            skipped=skipped,
        )


class Photographs(BatchDataset):
    """Photographs to be judged by, or to be made into tokens: each is one item, with all its captions.

    A bad picture is replaced by one of the same batch where there is one, so that its key comes twice and is dropped by
    whoever scores or writes.

    Args:
        reader: Reads the pictures.
    """

    def __init__(self, reader: PictureReader) -> None:
        self.reader = reader
        self.source = reader.source

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.source)

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        """Read pictures with all their captions; the first one is what the loss is measured on.

        Raises:
            ValueError: If there are too many bad pictures, or something is asked about some only.
        """
        pixels, taken, skipped = self.reader.read(indices, spares=indices)
        references = tuple(self.source.captions(index) for index in taken)
        return ImageTextBatch(
            image=pixels,
            captions=tuple(texts[0] for texts in references),
            keys=tuple(self.source.key(index) for index in taken),
            sources=(self.source.name,) * len(taken),
            references=references,
            prompts=_prompts(self.source, taken),
            skipped=skipped,
        )


def _prompts(source: ImageTextSource, indices: Sequence[int]) -> tuple[str, ...]:
    prompts = [source.prompt(index) for index in indices]
    asked = tuple(prompt for prompt in prompts if prompt is not None)
    if asked and len(asked) != len(prompts):
        silent = source.key(indices[prompts.index(None)])
        raise ValueError(
            f"Source {source.name!r} asks something about {len(asked)} of {len(prompts)} pictures and nothing about "
            f"{silent!r}; expected prompts for all of its pictures, or for none. Make them two sources."
        )
    return asked
