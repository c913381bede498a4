"""Image encoders and tokenizers, resamplers, image generators and scorers of image-text pairs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, assert_never, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from synth2_lightning.interfaces.loading import FrozenModule
from synth2_lightning.types import (
    ImageInput,
    MixedImages,
    Pixels,
    VQTokens,
)


class ImageEncoder(FrozenModule, ABC):
    """A frozen image network: images of any kind become ``(batch, tokens, dim)`` embeddings.

    Subclasses set the attributes in ``__init__`` and implement :meth:`encode_pixels`. They resize and normalize
    themselves, on the device, because they own the statistics.

    Attributes:
        name: Of the network; a codebook over its features carries it.
        num_tokens: N, embeddings per image.
        embed_dim: D, width of an embedding.
        image_size: Height and width in pixels that the network was trained at.
    """

    name: str
    num_tokens: int
    embed_dim: int
    image_size: int

    @abstractmethod
    def encode_pixels(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        """Embed images of any height and width."""

    def embed_tokens(self, tokens: VQTokens) -> Float[Tensor, "batch tokens dim"]:
        """Look codebook ids up.

        Raises:
            TypeError: If the encoder has no codebook.
        """
        raise TypeError(self._no_codebook(tokens.codebook))

    @final  # type: ignore[misc]  # torch declares forward as an attribute
    def forward(self, image: ImageInput) -> Float[Tensor, "batch tokens dim"]:
        """Embed images of any kind: from here on nothing knows which were real."""
        match image:
            case Pixels():
                return self.encode_pixels(image)
            case VQTokens():
                return self.embed_tokens(image)
            case MixedImages():
                return torch.cat([self(part) for part in image.parts])
            case _:
                assert_never(image)

    def _no_codebook(self, codebook: str) -> str:
        return (
            f"{type(self).__name__} {self.name!r} cannot embed image tokens (codebook {codebook!r}): it has no "
            "codebook. Use the encoder that made the tokens (encoders.vqgan.VQGANTokenizer or "
            "encoders.quantized.QuantizedEncoder)."
        )


class ImageTokenizer(ImageEncoder, ABC):
    """An image encoder with a codebook: images become ids, and ids become embeddings again.

    Law: ``encode_pixels(p)`` in its quantized form equals ``embed_tokens(tokenize(p))``.

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
        """Turn images into codebook ids."""

    def detokenize(self, tokens: VQTokens) -> Pixels:
        """Turn ids into images to look at, where the tokenizer has a decoder.

        Raises:
            TypeError: If it has none.
        """
        raise TypeError(
            f"{type(self).__name__} has no decoder from codes {tokens.codebook!r} to pixels; its tokens can be "
            "trained on but not looked at. Use encoders.vqgan.VQGANTokenizer where images are wanted."
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


class Resampler(nn.Module, ABC):
    """Brings any number of image embeddings to a fixed number of visual tokens of the decoder's width."""

    num_latents: int

    @abstractmethod
    def forward(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch queries width"]:
        """Resample."""

    def attention(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch queries tokens"]:
        """Say how much of each visual token comes from each image embedding, to be looked at; rows sum to one.

        Raises:
            TypeError: If the resampler cannot say.
        """
        raise TypeError(
            f"{type(self).__name__} cannot say where its visual tokens look in an image; expected a resampler that "
            "overrides attention(), as nn.perceiver.PerceiverResampler does."
        )


ResamplerFactory = Callable[[int, int], Resampler]
"""``(encoder dim, decoder width) -> Resampler``: so that a run file says each width nowhere, not twice."""


class ImageGenerator(FrozenModule, ABC):
    """Turns captions into image tokens. Seeds are per record, so ranks and batch sizes change nothing.

    Attributes:
        codebook_size: Number of codes of a level of the tokens that it makes.
    """

    codebook_size: int

    @abstractmethod
    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> VQTokens:
        """Synthesise one image per caption, never as pixels."""

    def check_request(self, captions: Sequence[str], seeds: Sequence[int]) -> None:
        """Refuse what no image can be made of.

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
                "counted from 0), and images of nothing would teach nothing. Leave these records out."
            )

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Give what decides the tokens besides caption and seed, known after ``load()``.

        Fingerprints of the weights and of the tokenizer's codebook, and every argument of the sampler, in plain values
        that JSON can hold. Shards carry it, and a run goes on only in a folder that carries the same.
        """


class PairScorer(FrozenModule, ABC):
    """Says how well captions agree with images, by other means than those that made the images.

    A score is a function of caption and image alone: what else is in the batch changes nothing. Higher is better;
    scores of different scorers do not compare.
    """

    @abstractmethod
    def score(self, tokens: VQTokens, captions: Sequence[str]) -> Float[Tensor, " batch"]:
        """Score each caption beside its image."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Give what decides the scores, known after ``load()``: fingerprints of the weights, and every argument.

        In plain values that JSON can hold. Shards carry it, and a run goes on only in a folder that carries the same.
        """


class ImageTextEncoder(FrozenModule, ABC):
    """A frozen pair of networks that put images and texts into one space, such as CLIP.

    An embedding is a function of its image or text alone: what else is in the batch changes nothing. All have
    length 1, so that the cosine of two is their dot product. Subclasses resize, normalize and split into tokens
    themselves, because they own the statistics and the vocabulary.
    """

    @abstractmethod
    def embed_images(self, pixels: Pixels) -> Float[Tensor, "batch dim"]:
        """Embed images of any height and width."""

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Embed texts; what is too long for the network is cut off at its end."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Give what decides the embeddings, known after ``load()``: a fingerprint of the weights, and every argument.

        In plain values that JSON can hold.
        """
