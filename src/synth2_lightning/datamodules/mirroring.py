"""Mirrored training images: token grids and pixels, flipped left to right."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor

from synth2_lightning.datamodules.pairs import BatchDataset
from synth2_lightning.types import ImageInput, ImageTextBatch, MixedImages, Pixels, VQTokens


class Mirroring:
    """Flips images left to right, except those whose text depends on the side.

    The columns of a token grid change places, and each position keeps its ids: these are about the ids of the mirrored
    image, as far as the tokenizer maps mirrored images to mirrored features.

    Do not mirror :mod:`~synth2_lightning.scenes`: a mirrored scene may have a combination that is held out of training.

    Args:
        words: Beginnings of words, in lower case. An image is not flipped if a word of its caption or prompt begins
            with one of them.

    Example:
        >>> from synth2_lightning.types import SampleInfo
        >>> tokens = VQTokens(torch.arange(8).view(2, 4, 1), "vqgan-512:1f3c9a02")
        >>> samples = (SampleInfo("7", "flickr8k"), SampleInfo("8", "flickr8k"))
        >>> batch = ImageTextBatch(tokens, ("a dog", "a dog on the left"), samples)
        >>> Mirroring().flip(batch, torch.tensor([True, True])).image.ids.flatten().tolist()
        [1, 0, 3, 2, 4, 5, 6, 7]
    """

    def __init__(self, words: Sequence[str] = ("left", "right")) -> None:
        self.words = tuple(words)

    def flip(self, batch: ImageTextBatch, rows: Bool[Tensor, " batch"]) -> ImageTextBatch:
        """Return a batch with some rows flipped; rows whose text depends on the side stay as they are.

        Raises:
            ValueError: If image tokens do not form a square grid.
        """
        prompts = batch.prompts or ("",) * len(batch)
        texts = zip(batch.captions, prompts, strict=True)
        has_side = torch.tensor([any(map(self._depends_on_side, pair)) for pair in texts], dtype=torch.bool)
        return replace(batch, image=_flip(batch.image, rows & ~has_side))

    def _depends_on_side(self, text: str) -> bool:
        return any(word.startswith(self.words) for word in re.findall(r"\w+", text.lower()))


class MirroredPairs(BatchDataset):
    """Training pairs in two variants: an item of the second half is an item of the first half, flipped.

    Args:
        pairs: The pairs.
        mirroring: Flips images.
    """

    num_variants = 2

    def __init__(self, pairs: BatchDataset, mirroring: Mirroring) -> None:
        self.pairs = pairs
        self.mirroring = mirroring

    def __len__(self) -> int:
        return self.num_variants * len(self.pairs)

    def fingerprint(self) -> str:
        """Return the checksum of the pairs, and the words of those that are not flipped."""
        return f"{self.pairs.fingerprint()}, mirrored without {'|'.join(self.mirroring.words)}"

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        """Return a batch of pairs, with the images of items of the second half flipped."""
        size = len(self.pairs)
        batch = self.pairs.read([index % size for index in indices])
        return self.mirroring.flip(batch, torch.tensor([index >= size for index in indices]))


def _flip(image: ImageInput, rows: Bool[Tensor, " batch"]) -> ImageInput:
    if isinstance(image, MixedImages):
        parts = zip(image.parts, rows.split([len(part) for part in image.parts]), strict=True)
        return MixedImages(tuple(_flip_part(part, chosen) for part, chosen in parts))
    return _flip_part(image, rows)


def _flip_part(image: Pixels | VQTokens, rows: Bool[Tensor, " batch"]) -> Pixels | VQTokens:
    if isinstance(image, Pixels):
        return Pixels(torch.where(rows[:, None, None, None], image.values.flip(3), image.values))
    side = math.isqrt(image.ids.shape[1])
    if side * side != image.ids.shape[1]:
        raise ValueError(
            f"An image of codebook {image.codebook!r} has {image.ids.shape[1]} tokens, which form no square grid and "
            "cannot be mirrored; expected a square number, such as 49 or 256. Remove `mirroring`."
        )
    flipped = rearrange(image.ids, "b (h w) l -> b h w l", w=side).flip(2).flatten(1, 2)
    return VQTokens(torch.where(rows[:, None, None], flipped, image.ids), image.codebook)
