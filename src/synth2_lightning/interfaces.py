"""The verbs of the house: what a part must be able to do.

All that own weights share one law: **construct cheap, load heavy.** ``__init__`` may read a configuration or a
tokenizer, so that widths are known; weights come in ``load()``, which may be called twice and then does nothing.
Lightning calls it through ``configure_model``, on every rank and in ``load_from_checkpoint`` alike.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any, Protocol, assert_never, final, runtime_checkable

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn

from synth2_lightning.types import (
    CaptionRecord,
    Completion,
    Concept,
    GenerationSettings,
    ImageEmbeddings,
    ImageInput,
    MixedImages,
    Pixels,
    Prompt,
    Quantization,
    Reconstruction,
    SoftVQTokens,
    TokenLoss,
    Verdict,
    VQTokens,
)


class ImageEncoder(nn.Module, ABC):
    """A frozen image network: pictures of any kind become ``(batch, tokens, dim)`` embeddings.

    Subclasses set the attributes in ``__init__`` and implement :meth:`encode_pixels`. They resize and normalise
    themselves, on the device, because they own the statistics.

    Attributes:
        name: What :class:`ImageEmbeddings` must say to come from this encoder.
        num_tokens: N, embeddings per picture.
        embed_dim: D, width of an embedding.
        image_size: Height and width in pixels that the network was trained at.
    """

    name: str
    num_tokens: int
    embed_dim: int
    image_size: int

    def load(self) -> None:
        """Bring the weights; the second call does nothing."""

    @abstractmethod
    def encode_pixels(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        """Embed pictures of any height and width."""

    def embed_tokens(self, tokens: VQTokens) -> Float[Tensor, "batch tokens dim"]:
        """Look codebook ids up.

        Raises:
            TypeError: If the encoder has no codebook.
        """
        raise TypeError(self._no_codebook(tokens.codebook))

    def embed_soft_tokens(self, tokens: SoftVQTokens) -> Float[Tensor, "batch tokens dim"]:
        """Take the expectation of the codebook's vectors under the given probabilities.

        Raises:
            TypeError: If the encoder has no codebook.
        """
        raise TypeError(self._no_codebook(tokens.codebook))

    def accept_embeddings(self, embeddings: ImageEmbeddings) -> Float[Tensor, "batch tokens dim"]:
        """Take embeddings that were made beforehand.

        Raises:
            ValueError: If another encoder made them.
        """
        if embeddings.encoder != self.name:
            raise ValueError(
                f"The embeddings were made by {embeddings.encoder!r}, this run's encoder is {self.name!r}, and "
                "their spaces have nothing in common. Use that encoder, or encode the pictures again with this one."
            )
        return embeddings.values

    @final  # type: ignore[misc]  # torch declares forward as an attribute
    def forward(self, image: ImageInput) -> Float[Tensor, "batch tokens dim"]:
        """Embed pictures of any kind: from here on nothing knows which were real."""
        match image:
            case Pixels():
                return self.encode_pixels(image)
            case VQTokens():
                return self.embed_tokens(image)
            case SoftVQTokens():
                return self.embed_soft_tokens(image)
            case ImageEmbeddings():
                return self.accept_embeddings(image)
            case MixedImages():
                return torch.cat([self(part) for part in image.parts])
            case _:
                assert_never(image)

    def _no_codebook(self, codebook: str) -> str:
        return (
            f"{type(self).__name__} {self.name!r} cannot embed image tokens (codebook {codebook!r}): it has no "
            "codebook. Use the encoder that made the tokens (encoders.vqgan.VQGANTokenizer or "
            "encoders.quantized.QuantizedEncoder), or synthesise embeddings of this encoder."
        )


class ImageTokenizer(ImageEncoder, ABC):
    """An image encoder with a codebook: pictures become ids, and ids become embeddings again.

    Law: ``encode_pixels(p)`` in its quantised form equals ``embed_tokens(tokenize(p))``.

    Attributes:
        codebook: Fingerprint of the codebook, known after ``load()``.
        codebook_size: Number of codes of a level.
        num_levels: L, residual levels; 1 for a plain codebook.
    """

    codebook: str
    codebook_size: int
    num_levels: int

    @abstractmethod
    def tokenize(self, pixels: Pixels) -> VQTokens:
        """Turn pictures into codebook ids."""

    def detokenize(self, tokens: VQTokens) -> Pixels:
        """Turn ids into pictures to look at, where the tokenizer has a decoder.

        Raises:
            TypeError: If it has none.
        """
        raise TypeError(
            f"{type(self).__name__} has no decoder from codes {tokens.codebook!r} to pixels; its tokens can be "
            "trained on but not looked at. Use encoders.vqgan.VQGANTokenizer where pictures are wanted."
        )

    def check_codebook(self, codebook: str) -> None:
        """Refuse tokens of another codebook.

        Raises:
            ValueError: If the fingerprint is not this tokenizer's.
        """
        if codebook != self.codebook:
            raise ValueError(
                f"The image tokens speak codebook {codebook!r}, this run's tokenizer speaks {self.codebook!r}: the "
                "same ids would mean other things. Make the tokens again with this tokenizer (`synth2 predict "
                "--config tokenize.yaml`), or use the tokenizer that made them."
            )

    def check_ids(self, ids: Tensor) -> None:
        """Refuse ids that the codebook does not have.

        Raises:
            ValueError: If an id is negative or not below ``codebook_size``.
        """
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.codebook_size:
            raise ValueError(
                f"The image tokens hold ids from {low} to {high}, but codebook {self.codebook!r} has the ids 0 to "
                f"{self.codebook_size - 1}. The shard is damaged or was written with another tokenizer: make it again."
            )


class TrainableTokenizer(nn.Module, ABC):
    """A tokenizer while it learns: pictures become codes and pictures again, with a gradient.

    It is no :class:`ImageTokenizer`, because its codes still move. ``export`` writes what becomes one.

    Attributes:
        codebook_size: Number of codes of a level.
    """

    codebook_size: int

    def load(self) -> None:
        """Bring weights to start from, where there are some; the second call does nothing."""

    @abstractmethod
    def reconstruct(self, pixels: Pixels) -> Reconstruction:
        """Encode, quantise and decode pictures of any height and width; in training the codebook moves along."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the trained tokenizer, for its frozen form to load.

        Raises:
            OSError: If the folder cannot be written.
        """


class FeatureExtractor(nn.Module, ABC):
    """A frozen network that says what pictures hold, at several depths: pictures that look alike have like features.

    It is no :class:`ImageEncoder`, because a gradient flows through it to the pictures.
    """

    def load(self) -> None:
        """Bring the weights; the second call does nothing."""

    @abstractmethod
    def extract(self, images: Float[Tensor, "batch 3 height width"]) -> list[Float[Tensor, "batch _ _ _"]]:
        """Make one feature map ``(batch, dim, height, width)`` per layer; -1 is black in the pictures, 1 is white."""


class Discriminator(nn.Module, ABC):
    """Tells real pictures from reconstructions, by a score for each of their regions."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch rows columns"]:
        """Score regions: above 0 what seems real; -1 is black in the pictures, 1 is white."""


class CodebookLearner(nn.Module, ABC):
    """A codebook over a frozen encoder's features while it learns, without a gradient.

    It is no :class:`ImageTokenizer`, because its codes still move. ``export`` writes what becomes one.

    Attributes:
        codebook_size: Number of codes of a level.
        num_levels: L, residual levels.
    """

    codebook_size: int
    num_levels: int

    def load(self) -> None:
        """Bring the encoder's weights; the second call does nothing."""

    @abstractmethod
    def quantize(self, pixels: Pixels) -> Quantization:
        """Encode and quantise pictures of any height and width; in training the codebook moves along."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the codebook, for the frozen tokenizer to load.

        Raises:
            OSError: If the folder cannot be written.
        """


class Resampler(nn.Module, ABC):
    """Brings any number of image embeddings to a fixed number of visual tokens of the decoder's width."""

    num_queries: int

    @abstractmethod
    def forward(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch queries width"]:
        """Resample."""

    def attention(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch queries tokens"]:
        """Say how much of each visual token comes from each image embedding, to be looked at; rows sum to one.

        Raises:
            TypeError: If the resampler cannot say.
        """
        raise TypeError(
            f"{type(self).__name__} cannot say where its visual tokens look in a picture; expected a resampler that "
            "overrides attention(), as nn.perceiver.PerceiverResampler does."
        )


ResamplerFactory = Callable[[int, int], Resampler]
"""``(encoder dim, decoder width) -> Resampler``: so that a run file says each width nowhere, not twice."""


class LanguageDecoder(nn.Module, ABC):
    """Turns visual tokens into words. Owns the vocabulary; how visual tokens enter the LM is its business alone.

    Attributes:
        embed_dim: E, width of the visual tokens that it expects.
    """

    embed_dim: int

    def load(self) -> None:
        """Bring the weights; the second call does nothing."""

    @abstractmethod
    def loss(
        self,
        visual: Float[Tensor, "batch queries width"],
        texts: Sequence[str],
        prompts: Sequence[str] | None = None,
    ) -> TokenLoss:
        """Negative log-likelihood of each text (and of the end after it), given its picture and its prompt.

        Prompts are read, not learnt: they carry no target.
        """

    @abstractmethod
    def generate(
        self,
        visual: Float[Tensor, "batch queries width"],
        settings: GenerationSettings,
        prompts: Sequence[str] | None = None,
    ) -> list[str]:
        """Write one text per row."""

    def fingerprint_vocabulary(self) -> str | None:
        """Return a checksum of the words and their ids; ``None`` lets weights of other words pass."""
        return None

    def attention(
        self, visual: Float[Tensor, "batch queries width"], texts: Sequence[str]
    ) -> list[Float[Tensor, "words queries"]]:
        """Say how much each word of each text looks at each visual token, to be looked at; rows sum to one.

        Words are what ``text.split()`` gives.

        Raises:
            TypeError: If the decoder cannot say.
        """
        raise TypeError(
            f"{type(self).__name__} cannot say where its words look; expected a decoder that overrides attention(), as "
            "decoders.prefix.PrefixDecoder and decoders.cross_attention.CrossAttentionDecoder do."
        )


class TextEncoder(nn.Module, ABC):
    """Turns words into embeddings that condition the image generator.

    Attributes:
        name: What a generator that was conditioned on it must be given again.
        embed_dim: Width of an embedding.
    """

    name: str
    embed_dim: int

    def load(self) -> None:
        """Bring the weights; the second call does nothing."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> tuple[Float[Tensor, "batch length dim"], Bool[Tensor, "batch length"]]:
        """Embed texts; the mask is true at real tokens. What else is in the batch changes no text's embeddings.

        Raises:
            ValueError: If a text is blank.
        """


class CaptionGenerator(nn.Module, ABC):
    """A language model that writes captions. Seeds are per record, so ranks and batch sizes change nothing.

    Attributes:
        model_name: What records call the model.
    """

    model_name: str

    def load(self) -> None:
        """Bring the weights, or find the server; the second call does nothing."""

    @abstractmethod
    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Completion]:
        """Answer each prompt."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Give what decides the answers besides prompt and seed, known after ``load()``; never a secret.

        In plain values that JSON can hold. Caption sets carry it, and a run goes on only in a folder that carries the
        same.
        """


class ImageGenerator(nn.Module, ABC):
    """Turns captions into image tokens. Seeds are per record, so ranks and batch sizes change nothing.

    Attributes:
        codebook_size: Number of codes of a level of the tokens that it makes.
    """

    codebook_size: int

    def load(self) -> None:
        """Bring the weights; the second call does nothing."""

    @abstractmethod
    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> VQTokens | SoftVQTokens | ImageEmbeddings:
        """Synthesise one picture per caption, never as pixels."""

    def check_request(self, captions: Sequence[str], seeds: Sequence[int]) -> None:
        """Refuse what no picture can be made of.

        Raises:
            ValueError: If a caption is empty, or there are not as many seeds as captions.
        """
        if len(captions) != len(seeds):
            raise ValueError(
                f"{type(self).__name__} was given {len(captions)} captions and {len(seeds)} seeds; expected one seed "
                "per caption."
            )
        empty = [row for row, caption in enumerate(captions) if not caption.strip()]
        if empty:
            raise ValueError(
                f"{len(empty)} of {len(captions)} captions are empty (the first is number {empty[0]} of its batch, "
                "counted from 0), and pictures of nothing would teach nothing. Leave these records out."
            )

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Give what decides the tokens besides caption and seed, known after ``load()``.

        Fingerprints of the weights and of the tokenizer's codebook, and every argument of the sampler, in plain values
        that JSON can hold. Shards carry it, and a run goes on only in a folder that carries the same.
        """


class PairScorer(nn.Module, ABC):
    """Says how well captions agree with pictures, by other means than those that made the pictures.

    A score is a function of caption and picture alone: what else is in the batch changes nothing. Higher is better;
    scores of different scorers do not compare.
    """

    def load(self) -> None:
        """Bring the weights; the second call does nothing."""

    @abstractmethod
    def score(self, tokens: VQTokens, captions: Sequence[str]) -> Float[Tensor, " batch"]:
        """Score each caption beside its picture."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Give what decides the scores, known after ``load()``: fingerprints of the weights, and every argument.

        In plain values that JSON can hold. Shards carry it, and a run goes on only in a folder that carries the same.
        """


class ImageTextEncoder(nn.Module, ABC):
    """A frozen pair of networks that put pictures and texts into one space, such as CLIP.

    An embedding is a function of its picture or text alone: what else is in the batch changes nothing. All have
    length 1, so that the cosine of two is their dot product. Subclasses resize, normalise and split into tokens
    themselves, because they own the statistics and the vocabulary.
    """

    def load(self) -> None:
        """Bring the weights; the second call does nothing."""

    @abstractmethod
    def embed_images(self, pixels: Pixels) -> Float[Tensor, "batch dim"]:
        """Embed pictures of any height and width."""

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Embed texts; what is too long for the network is cut off at its end."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Give what decides the embeddings, known after ``load()``: a fingerprint of the weights, and every argument.

        In plain values that JSON can hold.
        """


@runtime_checkable
class HasProvenance(Protocol):
    """What a module or a datamodule offers where its settings decide the records that a prediction writes."""

    def provenance(self) -> dict[str, Any]:
        """Give those settings, in plain values that JSON can hold; known when the prediction starts.

        A datamodule says by ``is_evaluation`` among them whether what it reads is known to be an evaluation split.
        """


@runtime_checkable
class LeavesOut(Protocol):
    """What a datamodule offers that can go on where an earlier prediction stopped."""

    def leave_out(self, records: Container[tuple[str, str]]) -> None:
        """Leave records, named by source and key, out of the prediction that was set up.

        To be called after ``setup("predict")``, with the same records on every rank: the ranks deal the rest out.
        """


@runtime_checkable
class HasInputs(Protocol):
    """What a datamodule offers whose records are made from inputs that could change between stop and resume."""

    def fingerprint_inputs(self, records: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return a fingerprint of what each record, named by source and key, is made from; after ``setup("predict")``.

        It is ``None`` for records of another source, and empty for those that the source no longer has.
        """


class CaptionSource(ABC):
    """A set of captions to synthesise from. Constructing it is cheap; ``load()`` reads the captions.

    Attributes:
        name: What logs and shards call it; the loss on its pairs is logged per name.
        is_evaluation: Whether they are known to be those of a split that scores are measured on: nothing may be learnt
            from pictures that are made of them.
    """

    name: str
    is_evaluation: bool = False

    @abstractmethod
    def load(self) -> None:
        """Read the captions; the second call does nothing."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of captions."""

    @abstractmethod
    def record(self, index: int) -> CaptionRecord:
        """Give a caption, never an empty one, under a key that no other has."""


class ConceptSource(ABC):
    """A list of things that captions may be asked for. Constructing it is cheap; ``load()`` reads the list.

    Attributes:
        name: What records and reports call it.
    """

    name: str

    @abstractmethod
    def load(self) -> None:
        """Read the list; the second call does nothing."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of concepts."""

    @abstractmethod
    def concept(self, index: int) -> Concept:
        """Give a concept, under a key that no other has."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Give what decides the list, known after ``load()``; among it a fingerprint of what it holds."""


class ConceptSampler(ABC):
    """Says which concepts captions are asked for, and how often each."""

    @abstractmethod
    def draw(self, concepts: Sequence[Concept], count: int, seed: int) -> list[int]:
        """Give indices of concepts, one per caption: a function of these three.

        The first ``n`` of a longer draw are the draw of ``n``, so that a set may be given more captions later.
        """

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Give every argument, in plain values that JSON can hold."""


Judge = Callable[[Sequence[CaptionRecord]], list[Verdict]]
"""Returns a verdict on each of the next captions of a set, in their order."""


class CaptionFilter(ABC):
    """Says which captions may stay, and cleans them."""

    @abstractmethod
    def start(self) -> Judge:
        """Return a function that judges one set, block by block.

        How a set is divided into blocks changes no verdict: a filter that compares captions keeps what it needs of the
        earlier ones in the function.
        """

    def judge(self, records: Sequence[CaptionRecord]) -> list[Verdict]:
        """Return a verdict on every caption of a set; the same records in the same order get the same verdicts."""
        return self.start()(records)

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Give every argument, in plain values that JSON can hold."""


class ImageTextSource(ABC):
    """A set of photographs with captions, read where it lies. Constructing it is cheap; ``load()`` reads the index.

    Attributes:
        name: Short name for logs, such as ``"coco"``; the loss is logged per name.
        is_evaluation: Whether it is known to be a split that scores are measured on: nothing may be learnt from it.
    """

    name: str
    is_evaluation: bool = False

    @abstractmethod
    def load(self) -> None:
        """Read the index (never a picture); the second call does nothing."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of pictures."""

    @abstractmethod
    def key(self, index: int) -> str:
        """The picture's id, the same in every run: scores, shards and predictions name it so."""

    @abstractmethod
    def captions(self, index: int) -> tuple[str, ...]:
        """Captions of a picture; at least one, none of them empty. Where something is asked, the accepted answers."""

    def prompt(self, index: int) -> str | None:
        """What is asked about a picture, such as a question; ``None``, for every picture, where captions say it all.

        A picture of which several things are asked is as many items, each with a key of its own.
        """
        return None

    def image_fingerprint(self, index: int) -> str:
        """Return what tells a picture from another version of it without decoding it; empty where nothing does."""
        return ""

    def fingerprint(self) -> str:
        """Checksum of keys, captions and prompts, in their order; after ``load()``."""
        digest = hashlib.blake2b(digest_size=8)
        for index in range(len(self)):
            digest.update(repr((self.key(index), self.captions(index), self.prompt(index))).encode())
        return digest.hexdigest()

    @abstractmethod
    def picture(self, index: int) -> Image.Image:
        """Read a picture.

        Raises:
            OSError: If it is missing or damaged, with its name in the message.
        """
