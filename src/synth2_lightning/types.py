"""The nouns of the house: what travels between its rooms.

Shape legend, valid in the whole package:
    batch B, tokens N (image positions), levels L (residual codebook levels), dim D (encoder width),
    queries Q (visual tokens), width E (decoder width), length T (text tokens).

Kinds of image are *types*, so a ``match`` over :data:`ImageInput` is proved complete by the type checker.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pixels:
    """RGB pictures, *not* normalised: the encoder owns the statistics.

    Example:
        >>> len(Pixels(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)))
        2
    """

    values: UInt8[Tensor, "batch 3 height width"]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.values)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Pixels":
        """Move to a device."""
        return replace(self, values=self.values.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Pixels":
        """Copy to page-locked memory."""
        return replace(self, values=self.values.pin_memory())


@dataclass(frozen=True, slots=True)
class VQTokens:
    """Codebook ids in raster order, and the fingerprint of the codebook that they speak.

    ``ids`` has one column per residual level; a plain VQ-GAN has one level. A fingerprint reads like
    ``"vqgan-512:1f3c9a02"``: ids of a foreign codebook are refused by the encoder instead of read as noise.

    Example:
        >>> len(VQTokens(torch.zeros(2, 64, 1, dtype=torch.long), "vqgan-512:1f3c9a02"))
        2
    """

    ids: Int[Tensor, "batch tokens levels"]
    codebook: str

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "VQTokens":
        """Move to a device."""
        return replace(self, ids=self.ids.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "VQTokens":
        """Copy to page-locked memory."""
        return replace(self, ids=self.ids.pin_memory())


@dataclass(frozen=True, slots=True)
class SoftVQTokens:
    """The K likeliest codes of every position with their probabilities, to be embedded as their expectation.

    ``probabilities`` is non-negative and sums to one over its last axis. Whether Synth² looks codes up or takes
    the expectation is not said by its paper, so both exist.

    Example:
        >>> ids = torch.zeros(2, 64, 1, 4, dtype=torch.long)
        >>> len(SoftVQTokens(ids, torch.full(ids.shape, 0.25), "vqgan-512:1f3c9a02"))
        2
    """

    ids: Int[Tensor, "batch tokens levels candidates"]
    probabilities: Float[Tensor, "batch tokens levels candidates"]
    codebook: str

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "SoftVQTokens":
        """Move to a device."""
        return replace(
            self,
            ids=self.ids.to(device, non_blocking=non_blocking),
            probabilities=self.probabilities.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "SoftVQTokens":
        """Copy to page-locked memory."""
        return replace(self, ids=self.ids.pin_memory(), probabilities=self.probabilities.pin_memory())


@dataclass(frozen=True, slots=True)
class ImageEmbeddings:
    """Pictures that were encoded beforehand, and the name of the encoder that did it.

    Example:
        >>> len(ImageEmbeddings(torch.zeros(2, 49, 320), "tf_efficientnet_lite0"))
        2
    """

    values: Float[Tensor, "batch tokens dim"]
    encoder: str

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.values)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ImageEmbeddings":
        """Move to a device."""
        return replace(self, values=self.values.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "ImageEmbeddings":
        """Copy to page-locked memory."""
        return replace(self, values=self.values.pin_memory())


@dataclass(frozen=True, slots=True)
class MixedImages:
    """Pictures of several kinds; the rows of the batch are the rows of the parts, in order.

    Example:
        >>> pixels = Pixels(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
        >>> tokens = VQTokens(torch.zeros(3, 64, 1, dtype=torch.long), "vqgan-512:1f3c9a02")
        >>> len(MixedImages((pixels, tokens)))
        5
    """

    parts: tuple[Pixels | VQTokens | SoftVQTokens | ImageEmbeddings, ...]

    def __len__(self) -> int:
        """Number of pictures over all parts."""
        return sum(len(part) for part in self.parts)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "MixedImages":
        """Move to a device."""
        return replace(self, parts=tuple(part.to(device, non_blocking) for part in self.parts))

    def pin_memory(self) -> "MixedImages":
        """Copy to page-locked memory."""
        return replace(self, parts=tuple(part.pin_memory() for part in self.parts))


ImageInput = Pixels | VQTokens | SoftVQTokens | ImageEmbeddings | MixedImages


@dataclass(frozen=True, slots=True)
class ImageTextBatch:
    """Pictures and their captions: the one batch of the house, whether real, synthetic or mixed.

    Args:
        image: The pictures of the batch.
        captions: One text per picture to learn from; strings, because the decoder owns the vocabulary.
        keys: One id per picture; scores drop rows whose key was seen before.
        sources: One name per picture, such as ``"coco"``; the loss is logged per source.
        references: All captions of every picture, in evaluation only.
        prompts: One text per picture that is read, not learnt, such as a question; empty for captioning.
        skipped: Names of the pictures that could not be read and were replaced in this batch.

    Example:
        >>> batch = ImageTextBatch(
        ...     Pixels(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)), ("a red circle",), ("7",), ("scenes",)
        ... )
        >>> len(ImageTextBatch.concat([batch, batch]))
        2
    """

    image: ImageInput
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    sources: tuple[str, ...]
    references: tuple[tuple[str, ...], ...] = ()
    prompts: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.captions)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ImageTextBatch":
        """Move the pictures to a device; the texts stay."""
        return replace(self, image=self.image.to(device, non_blocking))

    def pin_memory(self) -> "ImageTextBatch":
        """Copy the pictures to page-locked memory."""
        return replace(self, image=self.image.pin_memory())

    @classmethod
    def concat(cls, batches: "Sequence[ImageTextBatch]") -> "ImageTextBatch":
        """Join batches row after row, without copying a tensor.

        Raises:
            ValueError: If there is no batch to join.
        """
        if not batches:
            raise ValueError("ImageTextBatch.concat was given no batch; expected at least one.")
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
            keys=tuple(key for batch in batches for key in batch.keys),
            sources=tuple(source for batch in batches for source in batch.sources),
            references=tuple(texts for batch in batches for texts in batch.references),
            prompts=tuple(prompt for batch in batches for prompt in batch.prompts),
            skipped=tuple(name for batch in batches for name in batch.skipped),
        )


@dataclass(frozen=True, slots=True)
class CaptionRecord:
    """One caption to synthesise a picture from.

    Args:
        key: The record's id, the same in every run.
        caption: The text.
        class_name: What the caption was written for; empty where nobody said.
        is_cut: Whether its language model was stopped before it had ended.

    Example:
        >>> CaptionRecord("7", "a red circle").class_name
        ''
    """

    key: str
    caption: str
    class_name: str = ""
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Concept:
    """What a caption is asked for.

    Args:
        key: Its id, such as a WordNet synset; no other concept of its source has it.
        name: What people call it: one lemma, with spaces.
        definition: What tells it from others of that name; empty where nobody said.
        branch: The part of the world that it belongs to, such as ``"animal"``; empty where nobody said.
        weight: How common it is beside the others of its source, above 0; a count, or whatever its source says.

    Example:
        >>> Concept("n02084071", "dog", branch="animal").definition
        ''
    """

    key: str
    name: str
    definition: str = ""
    branch: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of what a language model is given; the names are those of the chat interfaces of all servers.

    Example:
        >>> ChatMessage("user", "dog").role
        'user'
    """

    role: Literal["system", "user", "assistant"]
    content: str


Prompt = tuple[ChatMessage, ...]
"""What a language model is given to write one caption."""


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts to have captions written for: what goes into a language model, as :class:`WrittenCaptions` comes out.

    Args:
        prompts: One per caption.
        keys: One id per caption.
        sources: Name of the concepts of each.
        class_names: What each caption is asked for; several names are joined by ``CLASS_NAME_SEPARATOR``.
        templates: Name and version of the template of each prompt.
        seeds: One per caption, from 0 to 2**63 - 1. Prompt and seed decide a caption; batch and rank do not.

    Example:
        >>> prompts = ((ChatMessage("user", "dog"),),)
        >>> len(PromptBatch(prompts, ("n02084071-0",), ("imagenet-21k",), ("dog",), ("class-based@1",), (1234,)))
        1
    """

    prompts: tuple[Prompt, ...]
    keys: tuple[str, ...]
    sources: tuple[str, ...]
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.prompts)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PromptBatch":
        """Stay: texts have no device."""
        return self


CLASS_NAME_SEPARATOR = " + "
"""Between the class names of a caption that was asked for several."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a language model answered to one prompt.

    Args:
        text: The answer as it came, preambles and refusals included.
        finish_reason: Why it ended: ``"stop"`` where the model said so, ``"length"`` where it was cut, or the server's.
        num_prompt_tokens: Tokens of the prompt.
        num_tokens: Tokens of the answer.

    Example:
        >>> Completion("A dog runs.", "stop", 80, 5).finish_reason
        'stop'
    """

    text: str
    finish_reason: str
    num_prompt_tokens: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class WrittenCaptions:
    """Answers of a language model beside what was asked: what a caption set holds, before its filters.

    Args:
        batch: What was asked.
        completions: One per prompt.
        model: Name of the language model.

    Example:
        >>> batch = PromptBatch((), (), (), (), (), ())
        >>> len(WrittenCaptions(batch, (), "smollm2"))
        0
    """

    batch: PromptBatch
    completions: tuple[Completion, ...]
    model: str

    def __len__(self) -> int:
        """Number of answers."""
        return len(self.completions)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a filter says of a caption.

    Args:
        caption: The caption, cleaned where the filter cleans.
        reason: Why it is rejected; empty where it may stay.

    Example:
        >>> Verdict("A dog runs.").reason
        ''
    """

    caption: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CaptionBatch:
    """Captions to synthesise pictures from: what goes into a generator, as :class:`TokenizedImages` comes out.

    Args:
        captions: One text per picture.
        keys: One id per picture.
        sources: One name per picture; it becomes that of the synthetic pair.
        class_names: What each caption was written for; empty where nobody said.
        seeds: One per picture, from 0 to 2**63 - 1. Caption and seed decide a picture; batch and rank do not.

    Example:
        >>> len(CaptionBatch(("a red circle",), ("7",), ("synthetic",), ("",), (1234,)))
        1
    """

    captions: tuple[str, ...]
    keys: tuple[str, ...]
    sources: tuple[str, ...]
    class_names: tuple[str, ...]
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        """Number of captions."""
        return len(self.captions)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "CaptionBatch":
        """Stay: texts have no device."""
        return self


@dataclass(frozen=True, slots=True)
class TokenizedImages:
    """Pictures that became image tokens, with all their captions: what a shard holds.

    Args:
        keys: One id per picture.
        sources: One name per picture.
        captions: All captions of every picture.
        tokens: The codebook ids.
        codebook_size: Number of codes of a level; every id is below.
        class_names: What each picture was made for; empty for photographs. Readers leave them in the shard.
        seeds: What each picture was drawn with; empty for photographs. Readers leave them in the shard.
        scores: How well each caption of each picture agrees with it; empty where nobody has scored them.

    Example:
        >>> tokens = VQTokens(torch.zeros(1, 64, 1, dtype=torch.long), "vqgan-512:1f3c9a02")
        >>> len(TokenizedImages(("7",), ("scenes",), (("a red circle",),), tokens, codebook_size=512))
        1
    """

    keys: tuple[str, ...]
    sources: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    tokens: VQTokens
    codebook_size: int
    class_names: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    scores: tuple[tuple[float, ...], ...] = ()

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.keys)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TokenizedImages":
        """Move the tokens to a device; the texts stay."""
        return replace(self, tokens=self.tokens.to(device, non_blocking))


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """Summed negative log-likelihood (nats) and number of target tokens of every row of a batch.

    Sums and counts, not means: so that losses of several sources, ranks or accumulated steps can be added up.

    Example:
        >>> float(TokenLoss(torch.tensor([2.0, 4.0]), torch.tensor([1, 2])).mean())
        2.0
    """

    sums: Float[Tensor, " batch"]
    counts: Int[Tensor, " batch"]

    def mean(self) -> Float[Tensor, ""]:
        """Mean loss per target token (nats).

        Raises:
            ValueError: If no row has a target token: its loss of zero would be silent nonsense.
        """
        total = self.counts.sum()
        if int(total) == 0:
            raise ValueError(
                f"None of the {len(self.counts)} captions of this batch has a target token, so there is nothing to "
                "learn from; expected at least one. Look for empty captions in the data, or for a prompt that "
                "fills the decoder's whole length."
            )
        return self.sums.sum() / total


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Pictures that went through a tokenizer and back, on the way to a loss.

    Args:
        pixels: What came back; -1 is black, 1 is white, and nothing is clamped.
        target: What went in, at the tokenizer's size; from -1 to 1.
        commitment: Mean squared distance of the encoder's outputs to their codes.
        ids: The codes in between.
        num_revived: Codes that nobody chose and that started again elsewhere, since the process began.
    """

    pixels: Float[Tensor, "batch 3 height width"]
    target: Float[Tensor, "batch 3 height width"]
    commitment: Float[Tensor, ""]
    ids: Int[Tensor, "batch tokens levels"]
    num_revived: int = 0


@dataclass(frozen=True, slots=True)
class Quantization:
    """Features of pictures beside what a codebook makes of them.

    Args:
        features: What the frozen encoder said.
        quantized: The sum of the chosen codes over the levels.
        ids: The chosen codes.
    """

    features: Float[Tensor, "batch tokens dim"]
    quantized: Float[Tensor, "batch tokens dim"]
    ids: Int[Tensor, "batch tokens levels"]


class CaptionOutput(TypedDict):
    """What ``validation_step``, ``test_step`` and ``predict_step`` return."""

    loss: Tensor
    keys: tuple[str, ...]
    captions: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads defaults by vars()
class GenerationSettings:
    """How captions are decoded; the names and meanings are those of transformers' ``generate``.

    Args:
        max_new_tokens: Most tokens that a caption may have.
        num_beams: Width of the beam search; 1 is greedy decoding, or sampling where ``do_sample``.
        do_sample: Draw tokens instead of taking the likeliest.
        temperature: Divides the logits where ``do_sample``.
        top_p: Keep the smallest set of tokens with this probability where ``do_sample``.
        length_penalty: Exponent of the length by which beam scores are divided.
        repetition_penalty: Divides the logits of tokens that were said before; 1 is none.
        no_repeat_ngram_size: No n-gram of this size twice; 0 is no such rule.

    Raises:
        ValueError: If a count is below one.

    Example:
        >>> GenerationSettings(num_beams=3).num_beams
        3
    """

    max_new_tokens: int = 30
    num_beams: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0

    def __post_init__(self) -> None:
        """Refuse counts that decode nothing."""
        for name in ("max_new_tokens", "num_beams"):
            if getattr(self, name) < 1:
                raise ValueError(f"GenerationSettings.{name} is {getattr(self, name)}; expected 1 or more.")
