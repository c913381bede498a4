"""Text networks of transformers that condition the image generator: pretrained and frozen, or new and learnt along."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from synth2_lightning.encoders.text_tokens import TextReader
from synth2_lightning.huggingface import NewNetwork
from synth2_lightning.interfaces import TextEncoder
from synth2_lightning.locations import is_here, locate_model


class TransformersTextEncoder(TextEncoder, ABC):
    """One embedding per token: the last hidden states of a text network, not pooled.

    Tokenizer and configuration are read when they are first asked for. The embeddings have the precision of the model
    around the encoder, whatever that of the network's weights.

    Args:
        max_length: Most tokens of a text, special ones included; longer texts are cut and counted.
    """

    anchor: Tensor

    def __init__(self, max_length: int) -> None:
        super().__init__()
        self.max_length = max_length
        self.network: Any = None
        # Knows the device and the precision of the model around, before there are weights.
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The fast tokenizer of transformers."""

    @property
    @abstractmethod
    def config(self) -> Any:
        """The configuration of transformers."""

    @abstractmethod
    def build_network(self) -> Any:
        """Build the network with its weights."""

    @cached_property
    def embed_dim(self) -> int:  # type: ignore[override]  # lazy, so that nothing is read before it is needed
        """Width of the embeddings.

        Raises:
            ValueError: If the network is no text encoder.
        """
        from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING

        if type(self.config) not in MODEL_FOR_TEXT_ENCODING_MAPPING:
            known = ", ".join(config.model_type for config in MODEL_FOR_TEXT_ENCODING_MAPPING)
            raise ValueError(
                f"{type(self).__name__} was given a {self.config.model_type!r} network, which transformers has no text "
                f"encoder for; expected one of: {known}."
            )
        return int(self.config.hidden_size)

    @cached_property
    def reader(self) -> TextReader:
        """The rules by which captions become ids."""
        return TextReader(self.tokenizer, self.max_length, getattr(self.config, "max_position_embeddings", None))

    @property
    def num_truncated(self) -> int:
        """Texts that were longer than ``max_length`` so far, and lost their ends."""
        return self.reader.num_truncated

    def load(self) -> None:
        """Bring the weights; the second call does nothing."""
        if self.network is not None:
            return
        _ = self.embed_dim, self.reader  # What does not fit is refused before weights are read.
        network = self.build_network()
        if hasattr(network, "pooler"):
            network.pooler = nn.Identity()  # Parameters that no loss reaches would make DDP wait for their gradients.
        self.network = network.to(self.anchor.device)
        self.train(self.training)

    def encode(self, texts: Sequence[str]) -> tuple[Float[Tensor, "batch length dim"], Bool[Tensor, "batch length"]]:
        """Embed texts; the mask is true at tokens of the text, special ones included.

        Raises:
            ValueError: If a text has no word.
            RuntimeError: If ``load()`` was not called.
        """
        if self.network is None:
            raise RuntimeError(f"The {type(self).__name__} has no weights yet; call load() before encoding texts.")
        tokens = self.reader.read(texts)
        ids, mask = tokens.ids.to(self.anchor.device), tokens.mask.to(self.anchor.device)
        hidden: Tensor = self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return hidden.to(self.anchor.dtype), mask


class PretrainedTextEncoder(TransformersTextEncoder):
    """A frozen text network with weights: the encoder of T5, the text tower of CLIP, MiniLM and others like BERT.

    Args:
        model: Name on the Hugging Face Hub, or a folder: a path, ``package://PACKAGE/PATH`` or ``weights://NAME``. The
            weights must be safetensors, and code that comes with them is not run.
        max_length: Most tokens of a text, special ones included; longer texts are cut and counted.
        dtype: Precision of the weights; half is enough, and much faster on CPUs that know bfloat16.

    Example:
        >>> encoder = PretrainedTextEncoder("google-t5/t5-small", max_length=32)  # nothing is read yet
        >>> encoder.training
        False
    """

    def __init__(
        self,
        model: str,
        max_length: int = 64,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        super().__init__(max_length)
        self.name = Path(model).name
        self.model = model
        self.dtype = dtype
        self.train(False)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that came with the weights."""
        from transformers import AutoTokenizer

        with self._reading() as location:
            return AutoTokenizer.from_pretrained(location, trust_remote_code=False, local_files_only=is_here(location))

    @cached_property
    def config(self) -> Any:
        """The configuration that came with the weights; of the text tower, where there are several."""
        from transformers import AutoConfig

        with self._reading() as location:
            config = AutoConfig.from_pretrained(location, trust_remote_code=False, local_files_only=is_here(location))
            return config.get_text_config()

    def build_network(self) -> Any:
        """Read the weights.

        Raises:
            OSError: If they cannot be had, are no safetensors, or do not fit the configuration.
        """
        from transformers import AutoModelForTextEncoding

        config = self.config
        with self._reading() as location, _without_report():
            network, info = AutoModelForTextEncoding.from_pretrained(
                location,
                config=config,
                dtype=getattr(torch, self.dtype),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=is_here(location),
                output_loading_info=True,
            )
            missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
            if missing:
                raise OSError(f"{len(missing)} tensors are missing ({', '.join(missing[:3])})")
        return network.requires_grad_(False)

    def train(self, mode: bool = True) -> "PretrainedTextEncoder":
        """Stay in evaluation mode: a frozen network has no use for dropout."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> tuple[Float[Tensor, "batch length dim"], Bool[Tensor, "batch length"]]:
        """Embed texts, without a gradient; the mask is true at tokens of the text, special ones included."""
        return super().encode(texts)

    @contextmanager
    def _reading(self) -> Iterator[str]:
        location = locate_model(self.model, "text network")
        try:
            yield location
        except (OSError, RuntimeError, ValueError) as error:  # transformers and the Hub's client know many families
            reason = " ".join(str(error).split())[:300]
            raise OSError(
                f"The text network {self.model!r} could not be read: {reason}. Expected a text encoder that "
                "transformers knows itself, with its tokenizer and its weights as safetensors, on the Hub or in a "
                "folder as save_pretrained writes it. Without a network connection give such a folder, or "
                "weights://all-minilm-l6-v2 after `synth2 weights all-minilm-l6-v2`."
            ) from error


class NewTextEncoder(TransformersTextEncoder):
    """A text network that starts from nothing and is learnt along with the generator.

    Args:
        config: The configuration of a Hugging Face model, such as ``{"model_type": "bert", "hidden_size": 192}``. Size
            of the vocabulary and special tokens are the tokenizer's.
        tokenizer: Where the tokenizer lies, such as the folder that ``build_vocabulary`` wrote, or its Hub name.
        max_length: Most tokens of a text, special ones included; longer texts are cut and counted.

    Raises:
        ValueError: If ``config`` lacks ``model_type``.

    Example:
        >>> config = {"model_type": "bert", "hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> encoder = NewTextEncoder(config, "package://synth2_lightning/scenes/vocabulary")
        >>> encoder.load()
        >>> embeddings, mask = encoder.encode(["a red circle", "a circle"])
        >>> embeddings.shape, mask.sum(1)
        (torch.Size([2, 3, 48]), tensor([3, 2]))
    """

    def __init__(self, config: dict[str, Any], tokenizer: str, max_length: int = 64) -> None:
        super().__init__(max_length)
        self._plan = NewNetwork(config, tokenizer, "NewTextEncoder")
        self.name = f"new-{config['model_type']}"

    @property
    def tokenizer(self) -> Any:
        """The tokenizer at the given place."""
        return self._plan.tokenizer

    @property
    def config(self) -> Any:
        """The given configuration, with the tokenizer's vocabulary."""
        return self._plan.config

    def build_network(self) -> Any:
        """Draw weights from torch's global random state."""
        from transformers import AutoModelForTextEncoding

        return AutoModelForTextEncoding.from_config(self.config)


@contextmanager
def _without_report() -> Iterator[None]:
    # Weights that the text network has no use for, such as CLIP's picture tower, are listed one by one; what is missing
    # is refused here, not reported.
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_report)


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()
