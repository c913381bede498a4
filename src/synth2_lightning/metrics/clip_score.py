"""CLIPScore and RefCLIPScore: how near captions are to their pictures, and to what people wrote of them, under CLIP.

J. Hessel et al. 2021 (https://arxiv.org/abs/2104.08718): ``CLIP-S = 2.5 * max(cos(picture, caption), 0)``, and
``RefCLIP-S``, the harmonic mean of it and the greatest ``max(cos(caption, reference), 0)`` of the picture's references.
Published figures are of OpenAI's ViT-B/32; scores of different encoders do not compare. The authors' code leaves the
cosine of references unclipped, which the paper's formula clips: they differ where no reference is nearer than a right
angle.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

import torch
from jaxtyping import Float
from torch import Tensor

from synth2_lightning.interfaces import ImageTextEncoder
from synth2_lightning.metrics.corpus import KeyedMetric, Row, check_references
from synth2_lightning.types import Pixels

PREFIX = "A photo depicts "
"""What the paper puts before every caption and every reference."""

_WEIGHT = 2.5


@dataclass(frozen=True, slots=True)
class RefClipScores:
    """CLIPScore (0 to 2.5) and RefCLIPScore (0 to 10/7) of each picture.

    Example:
        >>> RefClipScores(torch.tensor([2.0]), torch.tensor([1.0])).clip_scores
        tensor([2.])
    """

    clip_scores: Float[Tensor, " batch"]
    ref_clip_scores: Float[Tensor, " batch"]


def clip_scores(
    encoder: ImageTextEncoder, images: Pixels, captions: Sequence[str], prefix: str = PREFIX
) -> Float[Tensor, " batch"]:
    """Score captions by their pictures alone.

    Args:
        encoder: Loaded; whose space the cosines are taken in.
        images: The pictures.
        captions: One per picture.
        prefix: Put before every caption, its space included.

    Returns:
        One score per picture, 0 to 2.5.

    Raises:
        ValueError: If there are not as many captions as pictures.

    Example:
        >>> from synth2_lightning.testing import TinyImageTextEncoder
        >>> images = Pixels(torch.full((2, 3, 8, 8), 255, dtype=torch.uint8))
        >>> clip_scores(TinyImageTextEncoder(), images, ["a bright field", "a dark field"])
        tensor([2.5000, 0.0000])
    """
    _check_counts("clip_scores", images, captions=captions)
    if not len(images):  # not every network takes an empty batch
        return torch.zeros(0)
    return _agreement(encoder.embed_images(images), _embed(encoder, captions, prefix))


def ref_clip_scores(
    encoder: ImageTextEncoder,
    images: Pixels,
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    prefix: str = PREFIX,
) -> RefClipScores:
    """Score captions by their pictures and by what people wrote of them.

    Args:
        encoder: Loaded; whose space the cosines are taken in.
        images: The pictures.
        captions: One per picture.
        references: What people wrote, per picture; at least one text each.
        prefix: Put before every caption and reference, its space included.

    Raises:
        ValueError: If there are not as many captions and references as pictures, or a picture has no references.

    Example:
        >>> from synth2_lightning.testing import TinyImageTextEncoder
        >>> images = Pixels(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8))
        >>> scores = ref_clip_scores(TinyImageTextEncoder(), images, ["a bright field"], [["a dark one", "bright"]])
        >>> scores.ref_clip_scores  # of 2.5 and 1
        tensor([1.4286])
    """
    _check_counts("ref_clip_scores", images, captions=captions, references=references)
    for index, texts in enumerate(references):
        check_references(str(index), texts)
    if not len(images):
        return RefClipScores(torch.zeros(0), torch.zeros(0))
    hypotheses = _embed(encoder, captions, prefix)
    by_picture = _agreement(encoder.embed_images(images), hypotheses)
    people = _embed(encoder, [text for texts in references for text in texts], prefix)
    groups = torch.split(people, [len(texts) for texts in references])
    nearest = [(group @ text).max() for text, group in zip(hypotheses, groups, strict=True)]
    by_people = torch.stack(nearest).clamp(min=0)
    total = by_picture + by_people
    # Where both are 0, so is their mean.
    means = torch.where(total > 0, 2 * by_picture * by_people / total, torch.zeros_like(total))
    return RefClipScores(by_picture, means)


class _PictureMetric(KeyedMetric):
    """Rows are a picture's key, its content, and scores: pixels and embeddings are not kept."""

    def __init__(self, encoder: ImageTextEncoder, prefix: str = PREFIX) -> None:
        super().__init__()
        self.encoder = encoder
        self.prefix = prefix

    def check_repeat(self, known: Row, row: Row) -> None:
        """Refuse a key that belongs to two pictures, by their pixels.

        Raises:
            ValueError: If the pixels differ.
        """
        if known[1] != row[1]:
            raise ValueError(
                f"Two pictures share the key {row[0]!r}: their pixels differ (SHA-256 {known[1]}, {row[1]}), and one "
                "of them would be lost. Give every picture a key of its own."
            )

    def _add(self, keys: Sequence[str], images: Pixels, *columns: Tensor) -> None:
        contents = [_hash(picture) for picture in images.values]
        self.rows.extend(zip(keys, contents, *(column.tolist() for column in columns), strict=True))

    def _mean(self, column: int) -> Tensor:
        # In double precision and rounded once: the order of the rows plays no part.
        rows = self.unique_rows()
        return torch.tensor(fsum(row[column] for row in rows) / len(rows), device=self.device)


class ClipScore(_PictureMetric):
    """Mean CLIPScore over all pictures of all ranks.

    The same for any number of ranks, as far as the encoder's embeddings are the same in any batch.

    Args:
        encoder: Whose space the cosines are taken in; to be loaded before the first ``update()``.
        prefix: Put before every caption, its space included.

    Example:
        >>> from synth2_lightning.testing import TinyImageTextEncoder
        >>> metric = ClipScore(TinyImageTextEncoder())
        >>> images = Pixels(torch.full((2, 3, 8, 8), 255, dtype=torch.uint8))
        >>> metric.update(["1", "2"], images, ["a bright field", "a dark field"])
        >>> metric.compute()
        tensor(1.2500)
    """

    def update(self, keys: Sequence[str], images: Pixels, hypotheses: Sequence[str]) -> None:
        """Add pictures.

        Args:
            keys: One id per picture, the same in every epoch and on every rank.
            images: The pictures.
            hypotheses: One text per picture.

        Raises:
            ValueError: If the three have different lengths.
        """
        _check_counts("ClipScore", images, keys=keys, hypotheses=hypotheses)
        self._add(keys, images, clip_scores(self.encoder, images, hypotheses, self.prefix))

    def compute(self) -> Tensor:
        """Average over the pictures of all ranks.

        Raises:
            ValueError: If there is no picture, or if two pictures share a key.
        """
        return self._mean(2)


class RefClipScore(_PictureMetric):
    """Mean RefCLIPScore over all pictures of all ranks, and the CLIPScore that is part of it.

    The same for any number of ranks, as far as the encoder's embeddings are the same in any batch.

    Args:
        encoder: Whose space the cosines are taken in; to be loaded before the first ``update()``.
        prefix: Put before every caption and reference, its space included.

    Example:
        >>> from synth2_lightning.testing import TinyImageTextEncoder
        >>> metric = RefClipScore(TinyImageTextEncoder())
        >>> images = Pixels(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8))
        >>> metric.update(["1"], images, ["a bright field"], [["a bright lawn", "a dark lawn"]])
        >>> metric.compute()
        {'clip_score': tensor(2.5000), 'ref_clip_score': tensor(1.4286)}
    """

    def update(
        self, keys: Sequence[str], images: Pixels, hypotheses: Sequence[str], references: Sequence[Sequence[str]]
    ) -> None:
        """Add pictures.

        Args:
            keys: One id per picture, the same in every epoch and on every rank.
            images: The pictures.
            hypotheses: One text per picture.
            references: What people wrote, per picture; at least one text each.

        Raises:
            ValueError: If the four have different lengths, or a picture has no references.
        """
        _check_counts("RefClipScore", images, keys=keys, hypotheses=hypotheses, references=references)
        for key, texts in zip(keys, references, strict=True):
            check_references(key, texts)
        scores = ref_clip_scores(self.encoder, images, hypotheses, references, self.prefix)
        self._add(keys, images, scores.clip_scores, scores.ref_clip_scores)

    def compute(self) -> dict[str, Tensor]:
        """Average over the pictures of all ranks; ``clip_score`` and ``ref_clip_score``.

        Raises:
            ValueError: If there is no picture, or if two pictures share a key.
        """
        return {"clip_score": self._mean(2), "ref_clip_score": self._mean(3)}


def _embed(encoder: ImageTextEncoder, texts: Sequence[str], prefix: str) -> Tensor:
    return encoder.embed_texts([prefix + text for text in texts])


def _agreement(pictures: Tensor, texts: Tensor) -> Tensor:
    return _WEIGHT * (pictures * texts).sum(1).clamp(min=0)


def _hash(picture: Tensor) -> str:
    digest = hashlib.sha256(str(tuple(picture.shape)).encode())
    digest.update(picture.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def _check_counts(name: str, images: Pixels, **columns: Sequence[object]) -> None:
    if any(len(column) != len(images) for column in columns.values()):
        counts = ", ".join(f"{len(column)} {what}" for what, column in columns.items())
        raise ValueError(f"{name} was given {len(images)} pictures and {counts}; expected one of each per picture.")
