"""Training images, pixels or token grids, mirrored left to right."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor

from synth2_lightning.datamodules.pairs import BatchDataset
from synth2_lightning.types import ImageTextBatch, MixedImages, Pixels, VQTokens


class Mirroring:
    """Mirrors images left to right, except those whose text depends on the side.

    The columns of a token grid change places, with the ids of each token. These are approximately the ids of the
    mirrored image, because an encoder's features of it are approximately mirrored (``benchmarks/mirrored_tokens.py``).

    Do not mirror :mod:`~synth2_lightning.scenes`: a mirrored scene may have a combination that is held out of training.

    Args:
        words: Beginnings of words, in lower case. An image is left as it is if a word of one of its captions or of its
            prompt begins with one of them.

    Example:
        >>> from synth2_lightning.types import SampleInfo
        >>> tokens = VQTokens(torch.arange(8).view(2, 4, 1), "vqgan-512:1f3c9a02")
        >>> samples = (SampleInfo("7", "flickr8k"), SampleInfo("8", "flickr8k"))
        >>> batch = ImageTextBatch(tokens, ("a dog", "a dog on the left"), samples)
        >>> Mirroring().mirror(batch, torch.tensor([True, True])).image.ids.flatten().tolist()
        [1, 0, 3, 2, 4, 5, 6, 7]
    """

    def __init__(self, words: Sequence[str] = ("left", "right")) -> None:
        self.words = tuple(words)

    def mirror(self, batch: ImageTextBatch, rows: Bool[Tensor, " batch"]) -> ImageTextBatch:
        """Return a batch with some images mirrored; those whose text depends on the side are left as they are.

        Raises:
            ValueError: If the tokens of an image do not form a square grid.
        """
        nothing: tuple[str, ...] = ("",) * len(batch)
        references = batch.references or (nothing[:0],) * len(batch)
        texts = zip(batch.captions, batch.prompts or nothing, references, strict=True)
        rows = rows & torch.tensor(
            [not any(map(self._depends_on_side, (caption, prompt, *others))) for caption, prompt, others in texts]
        )
        if isinstance(batch.image, MixedImages):
            parts = zip(batch.image.parts, rows.split([len(part) for part in batch.image.parts]), strict=True)
            return replace(batch, image=MixedImages(tuple(_mirror(part, chosen) for part, chosen in parts)))
        return replace(batch, image=_mirror(batch.image, rows))

    def _depends_on_side(self, text: str) -> bool:
        return any(word.startswith(self.words) for word in re.findall(r"\w+", text.lower()))


class MirroredPairs(BatchDataset):
    """Training pairs in two variants: items of the second half are those of the first, with mirrored images.

    Args:
        pairs: The pairs.
        mirroring: Mirrors the images.
    """

    num_variants = 2

    def __init__(self, pairs: BatchDataset, mirroring: Mirroring) -> None:
        self.pairs = pairs
        self.mirroring = mirroring

    def __len__(self) -> int:
        return self.num_variants * len(self.pairs)

    def fingerprint(self) -> str:
        """Return the checksum of the pairs, and the words that depend on the side."""
        return f"{self.pairs.fingerprint()}, mirrored without {'|'.join(self.mirroring.words)}"

    def image_captions(self, indices: Sequence[int]) -> list[tuple[str, ...]]:
        """Return all captions of each different image among some items; a mirrored image is the same one."""
        return self.pairs.image_captions(sorted({index % len(self.pairs) for index in indices}))

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        """Return a batch of pairs, with mirrored images for items of the second half."""
        size = len(self.pairs)
        batch = self.pairs.read([index % size for index in indices])
        return self.mirroring.mirror(batch, torch.tensor([index >= size for index in indices]))


def mirror_pixels(pixels: Pixels, rows: Bool[Tensor, " batch"]) -> Pixels:
    """Return pixels with some images mirrored."""
    return Pixels(torch.where(rows[:, None, None, None], pixels.values.flip(3), pixels.values))


def mirror_tokens(tokens: VQTokens, rows: Bool[Tensor, " batch"]) -> VQTokens:
    """Return tokens with the grids of some images mirrored.

    Raises:
        ValueError: If the tokens of an image do not form a square grid.
    """
    num_tokens = tokens.ids.shape[1]
    side = math.isqrt(num_tokens)
    if side * side != num_tokens:
        raise ValueError(
            f"An image of codebook {tokens.codebook!r} has {num_tokens} tokens, which form no square grid and cannot "
            "be mirrored; expected a square number, such as 49 or 256. Remove `mirroring`."
        )
    mirrored = rearrange(tokens.ids, "b (h w) l -> b h w l", w=side).flip(2).flatten(1, 2)
    return VQTokens(torch.where(rows[:, None, None], mirrored, tokens.ids), tokens.codebook)


def _mirror(image: Pixels | VQTokens, rows: Bool[Tensor, " batch"]) -> Pixels | VQTokens:
    return mirror_pixels(image, rows) if isinstance(image, Pixels) else mirror_tokens(image, rows)
