"""CLIPScore and RefCLIPScore: similarity of captions to images and references in CLIP's embedding space.

J. Hessel et al. 2021 (https://arxiv.org/abs/2104.08718): ``CLIP-S = 2.5 * max(cos(image, caption), 0)``.
``RefCLIP-S`` is the harmonic mean of CLIP-S and the maximum of ``max(cos(caption, reference), 0)`` over the references.
Published scores use OpenAI's ViT-B/32; scores of different encoders are not comparable. As in the paper, the cosine of
references is clipped at 0; the authors' code does not clip it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

import torch
from jaxtyping import Float
from torch import Tensor

from synth2_lightning.interfaces import ImageTextEncoder
from synth2_lightning.metrics.corpus import check_references
from synth2_lightning.metrics.corpus_metrics import KeyedMetric, Row
from synth2_lightning.types import Pixels

PREFIX = "A photo depicts "
"""Prompt prefix of captions and references in the paper."""

_WEIGHT = 2.5


@dataclass(frozen=True, slots=True)
class RefClipScores:
    """CLIPScore in [0, 2.5] and RefCLIPScore in [0, 10/7] of each image."""

    clip_scores: Float[Tensor, " batch"]
    ref_clip_scores: Float[Tensor, " batch"]


def clip_scores(
    encoder: ImageTextEncoder, images: Pixels, captions: Sequence[str], prefix: str = PREFIX
) -> Float[Tensor, " batch"]:
    """Return CLIPScore in [0, 2.5] of captions, one per image, which needs no references.

    Args:
        encoder: Loaded CLIP encoder.
        images: The images.
        captions: One per image.
        prefix: Prompt prefix of the captions, including the space.

    Raises:
        ValueError: If the numbers of captions and images differ.

    Example:
        >>> from synth2_lightning.testing import TinyImageTextEncoder
        >>> images = Pixels(torch.full((2, 3, 8, 8), 255, dtype=torch.uint8))
        >>> clip_scores(TinyImageTextEncoder(), images, ["a bright field", "a dark field"])
        tensor([2.5000, 0.0000])
    """
    _check_counts("clip_scores", images, captions=captions)
    if not len(images):  # some networks fail for an empty batch
        return torch.zeros(0)
    return _clip_score(encoder.embed_images(images), _embed(encoder, captions, prefix))


def ref_clip_scores(
    encoder: ImageTextEncoder,
    images: Pixels,
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    prefix: str = PREFIX,
) -> RefClipScores:
    """Return CLIPScore and RefCLIPScore of captions with at least one reference each; see :func:`clip_scores`.

    Raises:
        ValueError: If the numbers of images, captions and references differ, or an image has no references.

    Example:
        >>> from synth2_lightning.testing import TinyImageTextEncoder
        >>> images = Pixels(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8))
        >>> scores = ref_clip_scores(TinyImageTextEncoder(), images, ["a bright field"], [["a dark one", "bright"]])
        >>> scores.ref_clip_scores  # harmonic mean of 2.5 and 1
        tensor([1.4286])
    """
    _check_counts("ref_clip_scores", images, captions=captions, references=references)
    for index, texts in enumerate(references):
        check_references(str(index), texts)
    if not len(images):
        return RefClipScores(torch.zeros(0), torch.zeros(0))
    hypotheses = _embed(encoder, captions, prefix)
    by_image = _clip_score(encoder.embed_images(images), hypotheses)
    embeddings = _embed(encoder, [text for texts in references for text in texts], prefix)
    groups = torch.split(embeddings, [len(texts) for texts in references])
    nearest = [(group @ text).max() for text, group in zip(hypotheses, groups, strict=True)]
    by_reference = torch.stack(nearest).clamp(min=0)
    total = by_image + by_reference
    # The harmonic mean of two zeros is defined as 0.
    means = torch.where(total > 0, 2 * by_image * by_reference / total, torch.zeros_like(total))
    return RefClipScores(by_image, means)


class _ImageMetric(KeyedMetric):
    """Metric whose rows hold an image's key, the hash of its pixels, and its scores.

    Independent of the number of ranks if the encoder's embeddings do not depend on the batch.
    """

    def __init__(self, encoder: ImageTextEncoder, prefix: str = PREFIX) -> None:
        super().__init__()
        self.encoder = encoder
        self.prefix = prefix

    def check_repeat(self, first: Row, row: Row) -> None:
        """Check that rows of the same key have the same pixels.

        Raises:
            ValueError: If they differ.
        """
        if first[1] != row[1]:
            raise ValueError(
                f"Two images share the key {row[0]!r}, but their pixels differ (SHA-256 {first[1]}, {row[1]}). "
                "Expected one key per image; rename one of them."
            )

    def _add(self, keys: Sequence[str], images: Pixels, *columns: Tensor) -> None:
        contents = [_hash(image) for image in images.values]
        self.rows.extend(zip(keys, contents, *(column.tolist() for column in columns), strict=True))

    def _mean(self, column: int) -> Tensor:
        # fsum makes the result independent of the order of the rows.
        rows = self.unique_rows()
        return torch.tensor(fsum(row[column] for row in rows) / len(rows), device=self.device)


class ClipScore(_ImageMetric):
    """Mean CLIPScore over the images of all ranks.

    Args:
        encoder: CLIP encoder; load it before the first ``update()``.
        prefix: Prompt prefix of the captions, including the space.

    Example:
        >>> from synth2_lightning.testing import TinyImageTextEncoder
        >>> metric = ClipScore(TinyImageTextEncoder())
        >>> images = Pixels(torch.full((2, 3, 8, 8), 255, dtype=torch.uint8))
        >>> metric.update(["1", "2"], images, ["a bright field", "a dark field"])
        >>> metric.compute()
        tensor(1.2500)
    """

    def update(self, keys: Sequence[str], images: Pixels, hypotheses: Sequence[str]) -> None:
        """Score a batch; a key identifies its image in all epochs and on all ranks.

        Raises:
            ValueError: If the arguments have different lengths.
        """
        _check_counts("ClipScore", images, keys=keys, hypotheses=hypotheses)
        self._add(keys, images, clip_scores(self.encoder, images, hypotheses, self.prefix))

    def compute(self) -> Tensor:
        """Return the mean over the images of all ranks.

        Raises:
            ValueError: If there is no image, or two images share a key.
        """
        return self._mean(2)


class RefClipScore(_ImageMetric):
    """Mean CLIPScore and RefCLIPScore over the images of all ranks; see :class:`ClipScore` for the arguments."""

    def update(
        self, keys: Sequence[str], images: Pixels, hypotheses: Sequence[str], references: Sequence[Sequence[str]]
    ) -> None:
        """Score a batch; see :meth:`ClipScore.update`.

        Raises:
            ValueError: If the arguments have different lengths, or an image has no references.
        """
        _check_counts("RefClipScore", images, keys=keys, hypotheses=hypotheses, references=references)
        for key, texts in zip(keys, references, strict=True):
            check_references(key, texts)
        scores = ref_clip_scores(self.encoder, images, hypotheses, references, self.prefix)
        self._add(keys, images, scores.clip_scores, scores.ref_clip_scores)

    def compute(self) -> dict[str, Tensor]:
        """Return the means ``clip_score`` and ``ref_clip_score`` over the images of all ranks."""
        return {"clip_score": self._mean(2), "ref_clip_score": self._mean(3)}


def _embed(encoder: ImageTextEncoder, texts: Sequence[str], prefix: str) -> Tensor:
    return encoder.embed_texts([prefix + text for text in texts])


def _clip_score(images: Tensor, texts: Tensor) -> Tensor:
    return _WEIGHT * (images * texts).sum(1).clamp(min=0)


def _hash(image: Tensor) -> str:
    digest = hashlib.sha256(str(tuple(image.shape)).encode())
    digest.update(image.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def _check_counts(name: str, images: Pixels, **columns: Sequence[object]) -> None:
    if any(len(column) != len(images) for column in columns.values()):
        counts = ", ".join(f"{len(column)} {label}" for label, column in columns.items())
        raise ValueError(f"{name} got {len(images)} images and {counts}; expected one of each per image.")
