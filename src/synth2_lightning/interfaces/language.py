"""Language decoders, text encoders and caption generators."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from synth2_lightning.interfaces.loading import FrozenModule, Loadable
from synth2_lightning.types import Completion, GenerationSettings, Prompt, SampledTexts, TokenLoss


class LanguageDecoder(Loadable, nn.Module, ABC):
    """Generates text from visual tokens. Owns the tokenizer and defines how visual tokens condition the LM.

    A prompt is text between the visual tokens and a row's text, such as a question. It is given and never a target:
    :meth:`loss` and :meth:`generate` condition on it in the same way.

    Attributes:
        embed_dim: Expected width of the visual tokens.
        prompt: Prompt of all rows if a call passes no ``prompts``; empty for none.
    """

    embed_dim: int
    prompt: str = ""

    @abstractmethod
    def loss(
        self,
        visual: Float[Tensor, "batch latents width"],
        texts: Sequence[str],
        prompts: Sequence[str] | None = None,
    ) -> TokenLoss:
        """Negative log-likelihood of each text and its end-of-text token, given its visual tokens and its prompt.

        Args:
            visual: Visual tokens, one row per text.
            texts: Captions or answers.
            prompts: One per text, each used instead of ``prompt``; ``None`` uses ``prompt`` for all.

        Raises:
            ValueError: If a text is empty, or too long for the language model, or the number of prompts is not that of
                the texts.
        """

    @abstractmethod
    def generate(
        self,
        visual: Float[Tensor, "batch latents width"],
        settings: GenerationSettings,
        prompts: Sequence[str] | None = None,
    ) -> list[str]:
        """Generate one text per row, without its prompt.

        Args:
            visual: Visual tokens.
            settings: Decoding settings.
            prompts: One per row, each used instead of ``prompt``; ``None`` uses ``prompt`` for all.

        Raises:
            ValueError: If the texts may get too long for the language model, or the number of prompts is not that of
                the rows.
        """

    def sample(
        self,
        visual: Float[Tensor, "batch latents width"],
        num_samples: int,
        max_new_tokens: int,
        prompts: Sequence[str] | None = None,
    ) -> SampledTexts:
        """Sample several texts per row from the distribution of the decoder, for objectives on its own texts.

        With torch's global generator. For unbiased gradients call it in ``eval()``: the tokens are sampled one after
        another and their likelihood is computed for all of them together, each with a dropout mask of its own.

        Args:
            visual: Visual tokens.
            num_samples: Number of texts per row.
            max_new_tokens: Maximum number of tokens of a text, its end-of-text token included.
            prompts: One per row, each used instead of ``prompt``; ``None`` uses ``prompt`` for all.

        Returns:
            The texts, those of a row adjacent, and the negative log-likelihoods of exactly the tokens that were
            sampled. Gradients reach the visual tokens.

        Raises:
            TypeError: If the decoder does not support it.
            ValueError: If the texts may get too long for the language model, or the number of prompts is not that of
                the rows.
        """
        raise TypeError(
            f"{type(self).__name__} cannot sample texts with their likelihoods; expected a decoder that overrides "
            "sample(), such as decoders.prefix.PrefixDecoder or decoders.cross_attention.CrossAttentionDecoder."
        )

    def fingerprint_vocabulary(self) -> str | None:
        """Return a checksum of the vocabulary and its ids; ``None`` disables the comparison on loading weights."""
        return None

    def attention(
        self, visual: Float[Tensor, "batch latents width"], texts: Sequence[str]
    ) -> list[Float[Tensor, "words latents"]]:
        """Attention of each word of each text, after ``prompt``, over the visual tokens; rows sum to one.

        Words are those of ``text.split()``.

        Raises:
            TypeError: If the decoder does not support it.
        """
        raise TypeError(
            f"{type(self).__name__} has no attention map from words to visual tokens; expected a decoder that "
            "overrides attention(), such as decoders.prefix.PrefixDecoder or "
            "decoders.cross_attention.CrossAttentionDecoder."
        )


class PromptedLanguageModel(Loadable, nn.Module, ABC):
    """Trainable language model that answers prompts, such as with captions."""

    @abstractmethod
    def loss(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> TokenLoss:
        """Negative log-likelihood of each text and its end-of-text token, given its prompt.

        Raises:
            ValueError: If a text is empty, or too long for the language model with its prompt.
        """

    @abstractmethod
    def generate(self, prompts: Sequence[Prompt], settings: GenerationSettings) -> list[str]:
        """Generate one answer per prompt."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the model with its tokenizer, for a :class:`CaptionGenerator` to load.

        Raises:
            OSError: If the folder cannot be written.
        """


class TextEncoder(Loadable, nn.Module, ABC):
    """Embeds texts that condition the image generator.

    Attributes:
        name: Identifies the encoder that a generator was trained with.
        embed_dim: Width of an embedding.
    """

    name: str
    embed_dim: int

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> tuple[Float[Tensor, "batch length dim"], Bool[Tensor, "batch length"]]:
        """Embed texts; the mask is True at real tokens. Embeddings do not depend on the rest of the batch.

        Raises:
            ValueError: If a text is blank.
        """


class CaptionGenerator(FrozenModule, ABC):
    """Language model that writes captions. Seeds are per record: outputs do not depend on ranks or batch sizes.

    Attributes:
        model_name: Name of the model in records.
    """

    model_name: str

    @abstractmethod
    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Completion]:
        """Generate one completion per prompt."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Return the settings that determine the outputs, besides prompt and seed, as JSON values; never a secret.

        Call it after ``load()``. Caption sets store it, and a run resumes only in a folder with equal provenance.
        """
