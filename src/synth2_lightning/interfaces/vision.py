"""Image encoders and tokenizers, resamplers, image generators and scorers of image-text pairs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar, assert_never, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from synth2_lightning.interfaces.loading import FrozenModule
from synth2_lightning.io.precision import full_float32
from synth2_lightning.io.recorded_specs import Component
from synth2_lightning.types import Condition, ImageInput, MixedImages, Pixels, VQTokens

_Resampler = TypeVar("_Resampler", bound="Resampler")  # beartype rejects typing.Self on methods


class ImageEncoder(FrozenModule, ABC):
    """Frozen image encoder: pixels or image tokens to ``(batch, tokens, dim)`` embeddings.

    Subclasses set the attributes in ``__init__`` and implement :meth:`encode_pixels`, which resizes and normalizes on
    the device.

    Attributes:
        name: Name of the network; part of the fingerprint of a codebook over its features.
        num_tokens: Embeddings per image.
        embed_dim: Width of an embedding.
        image_size: Height and width in pixels of the training images.
    """

    name: str
    num_tokens: int
    embed_dim: int
    image_size: int

    @abstractmethod
    def encode_pixels(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        """Embed images of any height and width."""

    def embed_tokens(self, tokens: VQTokens) -> Float[Tensor, "batch tokens dim"]:
        """Embed codebook ids.

        Raises:
            TypeError: If the encoder has no codebook.
        """
        raise TypeError(
            f"{type(self).__name__} {self.name!r} has no codebook and cannot embed image tokens of codebook "
            f"{tokens.codebook!r}; expected pixels. Use the encoder that made the tokens "
            "(encoders.vqgan.VQGANTokenizer or encoders.quantized.QuantizedEncoder)."
        )

    @final  # type: ignore[misc]  # torch declares forward as an attribute
    def forward(self, image: ImageInput) -> Float[Tensor, "batch tokens dim"]:
        """Embed pixels, image tokens or both; everything downstream is source-agnostic."""
        match image:
            case Pixels():
                return self.encode_pixels(image)
            case VQTokens():
                return self.embed_tokens(image)
            case MixedImages():
                return torch.cat([self(part) for part in image.parts])
            case _:
                assert_never(image)


class ImageTokenizer(ImageEncoder, ABC):
    """Image encoder with a codebook: tokenizes images, and embeds the ids.

    Invariant: quantized features of ``encode_pixels(p)`` equal ``embed_tokens(tokenize(p))``.

    Attributes:
        codebook: Fingerprint of the codebook; available after ``load()``.
        codebook_size: Number of codes per level.
        num_levels: Residual levels; 1 for a plain codebook.
    """

    codebook: str
    codebook_size: int
    num_levels: int

    @final
    @torch.no_grad()
    def tokenize(self, pixels: Pixels) -> VQTokens:
        """Return the codebook ids of images, computed in float32: rounded features have other ids."""
        with full_float32(pixels.values.device):
            return self._tokenize(pixels)

    @abstractmethod
    def _tokenize(self, pixels: Pixels) -> VQTokens:
        """Return the codebook ids of images."""

    def detokenize(self, tokens: VQTokens) -> Pixels:
        """Decode ids to images for display.

        Raises:
            TypeError: If the tokenizer has no pixel decoder.
        """
        raise TypeError(
            f"{type(self).__name__} has no decoder from codebook {tokens.codebook!r} to pixels; expected a tokenizer "
            "that has one. Use encoders.vqgan.VQGANTokenizer to display images."
        )

    def check_tokens(self, tokens: VQTokens) -> None:
        """Check that tokens are of this codebook.

        Raises:
            ValueError: If fingerprint or number of levels differ, or an id is negative or not below ``codebook_size``.
        """
        if tokens.codebook != self.codebook:
            raise ValueError(
                f"The image tokens belong to codebook {tokens.codebook!r}; expected {self.codebook!r}, the codebook of "
                "this run's tokenizer. Make the tokens again with this tokenizer (`synth2 predict --config "
                "tokenize.yaml`), or use the tokenizer that made them."
            )
        if tokens.ids.shape[2] != self.num_levels:
            raise ValueError(
                f"The image tokens have {tokens.ids.shape[2]} levels, but {self.name!r} with codebook "
                f"{self.codebook!r} has {self.num_levels}. Use the tokenizer that made them."
            )
        if not tokens.ids.is_cpu:
            return  # The host would wait for the device in every step; the indexing kernel asserts the range there.
        low, high = int(tokens.ids.min()), int(tokens.ids.max())
        if low < 0 or high >= self.codebook_size:
            raise ValueError(
                f"The image tokens have ids from {low} to {high}; codebook {self.codebook!r} is expected to have ids "
                f"from 0 to {self.codebook_size - 1}. The shard is damaged or was written with another tokenizer: make "
                "it again."
            )


class Resampler(Component, nn.Module, ABC):
    """Maps any number of image embeddings to a fixed number of visual tokens of the decoder's width.

    ``__init__`` takes the settings. The module that uses the resampler calls :meth:`build` with the widths of encoder
    and decoder, so that neither run files nor scripts repeat them.

    Attributes:
        num_latents: Visual tokens per image.
    """

    num_latents: int
    _is_built = False

    @final
    def build(self: _Resampler, input_dim: int, output_dim: int) -> _Resampler:
        """Create the weights, and return the resampler.

        Args:
            input_dim: Width of the image embeddings.
            output_dim: Width of the visual tokens, which is that of the decoder.

        Raises:
            ValueError: If it was called before: two modules would share the weights.
        """
        if self._is_built:
            raise ValueError(
                f"This {type(self).__name__} belongs to another module already; expected a new one, because the two "
                "would share its weights. Construct it again with the same arguments."
            )
        self._build(input_dim, output_dim)
        self._is_built = True
        return self

    @abstractmethod
    def _build(self, input_dim: int, output_dim: int) -> None:
        """Create the weights; called once."""

    @abstractmethod
    def forward(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch latents width"]:
        """Return the visual tokens of image embeddings."""

    def attention(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch latents tokens"]:
        """Attention of each visual token over the image embeddings, for visualization; rows sum to one.

        Raises:
            TypeError: If the resampler does not support it.
        """
        raise TypeError(
            f"{type(self).__name__} has no attention map from visual tokens to the image; expected a resampler that "
            "overrides attention(), such as nn.perceiver.PerceiverResampler."
        )


class ImageGenerator(FrozenModule, ABC):
    """Generates image tokens from captions. Seeds are per record: outputs do not depend on ranks or batch sizes.

    Attributes:
        codebook_size: Number of codes per level of the generated tokens.
    """

    codebook_size: int

    @abstractmethod
    def generate(self, captions: Sequence[Condition], seeds: Sequence[int]) -> VQTokens:
        """Generate the tokens of one image per caption, or per tuple of captions.

        Raises:
            ValueError: If a caption is empty, there are not as many seeds as captions, or the generator does not
                support several captions of an image.
        """

    def check_request(self, captions: Sequence[Condition], seeds: Sequence[int]) -> None:
        """Raise the errors of :meth:`generate`."""
        if len(captions) != len(seeds):
            raise ValueError(
                f"{type(self).__name__} received {len(captions)} captions and {len(seeds)} seeds; expected one seed "
                "per caption."
            )
        groups = [(caption,) if isinstance(caption, str) else caption for caption in captions]
        empty = [row for row, group in enumerate(groups) if not group or not all(text.strip() for text in group)]
        if empty:
            raise ValueError(
                f"{len(empty)} of {len(captions)} captions are empty (the first at index {empty[0]} of the batch); "
                "expected text. Remove these records."
            )

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Return the settings that determine the tokens, besides caption and seed, as JSON values.

        They are fingerprints of the weights and of the tokenizer's codebook, and every argument of the sampler. Call it
        after ``load()``. Shards store it, and a run resumes only in a folder with equal provenance.
        """


class PairScorer(FrozenModule, ABC):
    """Scores the agreement of captions and images with a model other than the generator's.

    A score depends on its caption and image alone, not on the rest of the batch. Higher is better; scores of different
    scorers are not comparable.
    """

    @abstractmethod
    def score(self, tokens: VQTokens, captions: Sequence[str]) -> Float[Tensor, " batch"]:
        """Score each image-caption pair."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Return fingerprints of the weights and every argument, as :meth:`ImageGenerator.provenance` does."""


class ImageTextEncoder(FrozenModule, ABC):
    """Frozen dual encoder that embeds images and texts in one space, such as CLIP.

    An embedding depends on its image or text alone, not on the rest of the batch, and has unit norm. Subclasses resize,
    normalize and tokenize.
    """

    @abstractmethod
    def embed_images(self, pixels: Pixels) -> Float[Tensor, "batch dim"]:
        """Embed images of any height and width."""

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Embed texts, truncated to the maximum length of the network."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Return a fingerprint of the weights and every argument, as JSON values; call it after ``load()``."""
