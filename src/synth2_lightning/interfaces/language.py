"""Language decoders, text encoders and caption generators."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from synth2_lightning.interfaces.loading import FrozenModule, Loadable
from synth2_lightning.types import (
    Completion,
    GenerationSettings,
    Prompt,
    TokenLoss,
)


class LanguageDecoder(Loadable, nn.Module, ABC):
    """Turns visual tokens into words. Owns the vocabulary; how visual tokens enter the LM is its business alone.

    Attributes:
        embed_dim: E, width of the visual tokens that it expects.
    """

    embed_dim: int

    @abstractmethod
    def loss(
        self,
        visual: Float[Tensor, "batch queries width"],
        texts: Sequence[str],
        prompts: Sequence[str] | None = None,
    ) -> TokenLoss:
        """Negative log-likelihood of each text (and of the end after it), given its image and its prompt.

        Prompts are read, not learned: they carry no target.
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


class TextEncoder(Loadable, nn.Module, ABC):
    """Turns words into embeddings that condition the image generator.

    Attributes:
        name: What a generator that was conditioned on it must be given again.
        embed_dim: Width of an embedding.
    """

    name: str
    embed_dim: int

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> tuple[Float[Tensor, "batch length dim"], Bool[Tensor, "batch length"]]:
        """Embed texts; the mask is true at real tokens. What else is in the batch changes no text's embeddings.

        Raises:
            ValueError: If a text is blank.
        """


class CaptionGenerator(FrozenModule, ABC):
    """A language model that writes captions. Seeds are per record, so ranks and batch sizes change nothing.

    Attributes:
        model_name: What records call the model.
    """

    model_name: str

    @abstractmethod
    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Completion]:
        """Answer each prompt."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Give what decides the answers besides prompt and seed, known after ``load()``; never a secret.

        In plain values that JSON can hold. Caption sets carry it, and a run goes on only in a folder that carries the
        same.
        """
