"""Batches that datamodules yield and modules consume."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from synth2_lightning.types.captions import Completion, Concept, Prompt
from synth2_lightning.types.images import ImageInput, MixedImages, VQTokens

_Batch = TypeVar("_Batch", bound="SampleBatch")


@dataclass(frozen=True, slots=True)
class SampleInfo:
    """Identity of a record in batches, shards and predictions.

    Args:
        key: Id, unique within the source; metrics drop rows with a repeated key.
        source: Name of the source, such as ``"coco"``; the loss is logged per source.
        class_name: Class that the caption was written for; empty if unknown.
        seed: Generation seed, from 0 to 2**63 - 1; ``None`` if the record was not generated. It does not depend on
            ranks, order or batches.
    """

    key: str
    source: str
    class_name: str = ""
    seed: int | None = None


class SampleBatch:
    """Base class of batches with one :class:`SampleInfo` per row; exposes its fields as columns."""

    __slots__ = ()
    samples: tuple[SampleInfo, ...]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.samples)

    def to(self: _Batch, device: torch.device | str, non_blocking: bool = False) -> _Batch:
        """Move tensors to a device; a batch without tensors is returned unchanged."""
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """Key of every row."""
        return tuple(sample.key for sample in self.samples)

    @property
    def sources(self) -> tuple[str, ...]:
        """Source of every row."""
        return tuple(sample.source for sample in self.samples)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the rows that have one."""
        return tuple(sample.seed for sample in self.samples if sample.seed is not None)


@dataclass(frozen=True, slots=True)
class ImageTextBatch(SampleBatch):
    """Images and their captions, whether real, synthetic or mixed.

    Args:
        image: The images of the batch.
        captions: One target text per image; strings, because the decoder owns the tokenizer.
        samples: Key and source of every image.
        references: All captions of every image.
        prompts: One text per image without a loss, such as a question; empty for captioning.
        skipped: Names of unreadable images that were replaced in this batch.
        weights: Weight of the loss of every row, above 0; ``None`` weights all equally.

    Example:
        >>> from synth2_lightning.types import Pixels
        >>> batch = ImageTextBatch(
        ...     Pixels(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)), ("a red circle",), (SampleInfo("7", "scenes"),)
        ... )
        >>> len(ImageTextBatch.concat([batch, batch]))
        2
    """

    image: ImageInput
    captions: tuple[str, ...]
    samples: tuple[SampleInfo, ...]
    references: tuple[tuple[str, ...], ...] = ()
    prompts: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    weights: Float[Tensor, " batch"] | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ImageTextBatch":
        """Move images and weights to a device."""
        weights = self.weights
        if weights is not None:
            weights = weights.to(device, non_blocking=non_blocking or weights.is_pinned())
        return replace(self, image=self.image.to(device, non_blocking), weights=weights)

    def pin_memory(self) -> "ImageTextBatch":
        """Copy images and weights to page-locked memory."""
        weights = None if self.weights is None else self.weights.pin_memory()
        return replace(self, image=self.image.pin_memory(), weights=weights)

    @classmethod
    def concat(cls, batches: "Sequence[ImageTextBatch]") -> "ImageTextBatch":
        """Concatenate batches along the rows, without copying images.

        If only some batches have weights, the rows of the others have the weight 1.

        Raises:
            ValueError: If ``batches`` is empty.
        """
        if not batches:
            raise ValueError("ImageTextBatch.concat received no batch; expected at least one.")
        if len(batches) == 1:
            return batches[0]
        parts = [
            part
            for batch in batches
            for part in (batch.image.parts if isinstance(batch.image, MixedImages) else (batch.image,))
        ]
        return cls(
            image=MixedImages(tuple(parts)),
            captions=tuple(text for batch in batches for text in batch.captions),
            samples=tuple(sample for batch in batches for sample in batch.samples),
            references=tuple(texts for batch in batches for texts in batch.references),
            prompts=tuple(prompt for batch in batches for prompt in batch.prompts),
            skipped=tuple(name for batch in batches for name in batch.skipped),
            weights=_concat_weights(batches),
        )


def _concat_weights(batches: Sequence[ImageTextBatch]) -> Tensor | None:
    if all(batch.weights is None for batch in batches):
        return None
    return torch.cat([torch.ones(len(batch)) if batch.weights is None else batch.weights for batch in batches])


@dataclass(frozen=True, slots=True)
class PromptBatch(SampleBatch):
    """Prompts for a caption generator; the outputs are :class:`WrittenCaptions`.

    Args:
        prompts: One per caption.
        samples: One per caption, with a seed each: prompt and seed determine a caption. The names of several classes
            are joined by ``CLASS_NAME_SEPARATOR``.
        templates: Name and version of the template of each prompt.
    """

    prompts: tuple[Prompt, ...]
    samples: tuple[SampleInfo, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WrittenCaptions:
    """Prompts and completions of a language model, before filtering.

    Args:
        batch: The prompts.
        completions: One per prompt.
        model: Name of the language model.
    """

    batch: PromptBatch
    completions: tuple[Completion, ...]
    model: str

    def __len__(self) -> int:
        """Number of completions."""
        return len(self.completions)


@dataclass(frozen=True, slots=True)
class CaptionBatch(SampleBatch):
    """Captions for an image generator; the outputs are :class:`TokenizedImages`.

    Args:
        captions: All captions of every image.
        conditions: Those of them that the image is generated from.
        samples: One per image, with a seed each: conditions and seed determine an image. The synthetic pairs keep them.
    """

    captions: tuple[tuple[str, ...], ...]
    conditions: tuple[tuple[str, ...], ...]
    samples: tuple[SampleInfo, ...]


@dataclass(frozen=True, slots=True)
class ConceptCaptionBatch(SampleBatch):
    """Captions and the concepts that they name, to fine-tune a language model on.

    Args:
        captions: One text per row.
        concepts: Concepts of each caption; a caption may have none.
        samples: Key and source of every caption.
    """

    captions: tuple[str, ...]
    concepts: tuple[tuple[Concept, ...], ...]
    samples: tuple[SampleInfo, ...]


@dataclass(frozen=True, slots=True)
class TokenizedImages(SampleBatch):
    """Tokenized images with all their captions, the rows of a shard.

    Args:
        samples: One per image.
        captions: All captions of every image.
        tokens: The codebook ids.
        codebook_size: Number of codes per level, an exclusive upper bound of the ids.
        scores: Image-text scores of each caption of each image; empty if not scored.
    """

    samples: tuple[SampleInfo, ...]
    captions: tuple[tuple[str, ...], ...]
    tokens: VQTokens
    codebook_size: int
    scores: tuple[tuple[float, ...], ...] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TokenizedImages":
        """Move the tokens to a device."""
        return replace(self, tokens=self.tokens.to(device, non_blocking))
