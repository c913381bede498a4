"""Text encoders of transformers that condition the image generator: pretrained and frozen, or trained jointly."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from synth2_lightning.compat.transformers import run_network
from synth2_lightning.encoders.text_cache import TextCache, encode_independently
from synth2_lightning.encoders.text_tokens import TextTokenizer
from synth2_lightning.interfaces import FrozenModule, TextEncoder
from synth2_lightning.io.huggingface import NewNetwork
from synth2_lightning.io.locations import is_here, locate_model
from synth2_lightning.io.log_filters import without_messages
from synth2_lightning.io.messages import name_first, one_line
from synth2_lightning.io.precision import WeightType, weight_dtype
from synth2_lightning.nn.transfer import to_device


class TransformersTextEncoder(TextEncoder, ABC):
    """Text encoder that returns the last hidden states, one embedding per token.

    Tokenizer and configuration are read on first use. Embeddings are cast to the dtype of the surrounding module.

    Args:
        max_length: Maximum number of tokens per text, including special tokens; longer texts are truncated and counted.
    """

    anchor: Tensor

    def __init__(self, max_length: int) -> None:
        super().__init__()
        self.max_length = max_length
        self.network: Any = None
        # Follows the device and dtype of the surrounding module before the weights are read.
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """Fast tokenizer of transformers."""

    @property
    @abstractmethod
    def config(self) -> Any:
        """Configuration of transformers."""

    @abstractmethod
    def build_network(self) -> Any:
        """Return the network with its weights."""

    @cached_property
    def embed_dim(self) -> int:  # type: ignore[override]  # lazy, so that construction reads no file
        """Width of the embeddings.

        Raises:
            ValueError: If transformers has no text encoder of the configured type.
        """
        from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING

        if type(self.config) not in MODEL_FOR_TEXT_ENCODING_MAPPING:
            known = ", ".join(config.model_type for config in MODEL_FOR_TEXT_ENCODING_MAPPING)
            raise ValueError(
                f"{type(self).__name__} got model_type {self.config.model_type!r}, for which transformers has no text "
                f"encoder; expected one of: {known}."
            )
        return int(self.config.hidden_size)

    @cached_property
    def text_tokenizer(self) -> TextTokenizer:
        """Tokenization and truncation of captions."""
        return TextTokenizer(self.tokenizer, self.max_length, getattr(self.config, "max_position_embeddings", None))

    @property
    def num_truncated(self) -> int:
        """Number of texts truncated to ``max_length`` so far; those in a cache count once."""
        return self.text_tokenizer.num_truncated

    def _load(self) -> None:
        _ = self.embed_dim, self.text_tokenizer  # raise on invalid arguments before reading weights
        network = self.build_network()
        if hasattr(network, "pooler"):
            network.pooler = nn.Identity()  # DDP rejects parameters without a gradient
        self.network = network.to(self.anchor.device)
        self.train(self.training)

    def encode(self, texts: Sequence[str]) -> tuple[Float[Tensor, "batch length dim"], Bool[Tensor, "batch length"]]:
        """Return token embeddings and a mask that is true at text tokens, including special tokens.

        Raises:
            ValueError: If a text contains no word.
        """
        ids, mask = self.text_tokenizer.tokenize(texts)
        return self._run(ids, mask).to(self.anchor.dtype), to_device(mask, self.anchor.device)

    def _run(self, ids: Int[Tensor, "batch length"], mask: Bool[Tensor, "batch length"]) -> Tensor:
        """Return the last hidden states of token ids on the host."""
        if self.network is None:
            raise RuntimeError(f"The weights of {type(self).__name__} are not loaded; call load() first.")
        has_padding = not bool(mask.all())
        ids, mask = to_device(ids, self.anchor.device), to_device(mask.long(), self.anchor.device)
        hidden: Tensor = run_network(self.network, has_padding, input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden


class PretrainedTextEncoder(FrozenModule, TransformersTextEncoder):
    """Frozen pretrained text encoder: the encoder of T5, the text tower of CLIP, MiniLM or another BERT-like network.

    Args:
        model: Hugging Face Hub id, or a folder: a path, ``package://PACKAGE/PATH`` or ``weights://NAME``. Weights must
            be safetensors; remote code is not executed.
        max_length: Maximum number of tokens per text, including special tokens; longer texts are truncated and counted.
        dtype: Type of the weights; ``"auto"`` is bfloat16 where the hardware computes it, which is precise enough.
        cache_gib: Memory for the embeddings of texts, which are encoded once, in GiB on the device; 0 stores none. A
            caption of 15 tokens takes 11 KiB with MiniLM in bfloat16.

    Raises:
        ValueError: If ``cache_gib`` is negative.
    """

    def __init__(
        self,
        model: str,
        max_length: int = 64,
        dtype: WeightType = "float32",
        cache_gib: float = 1.0,
    ) -> None:
        super().__init__(max_length)
        if cache_gib < 0:
            raise ValueError(f"PretrainedTextEncoder got cache_gib={cache_gib}; expected 0 or more GiB.")
        self.name = Path(model).name
        self.model = model
        self.dtype = dtype
        self._max_cached = int(cache_gib * 2**30)
        self._cache = TextCache(self._max_cached)
        self._cached_on = self.anchor.device

    @cached_property
    def tokenizer(self) -> Any:
        """Tokenizer of the pretrained model."""
        from transformers import AutoTokenizer

        with self._reading() as location:
            return AutoTokenizer.from_pretrained(location, trust_remote_code=False, local_files_only=is_here(location))

    @cached_property
    def config(self) -> Any:
        """Configuration of the pretrained model, or of its text tower."""
        from transformers import AutoConfig

        with self._reading() as location:
            config = AutoConfig.from_pretrained(location, trust_remote_code=False, local_files_only=is_here(location))
            return config.get_text_config()

    def build_network(self) -> Any:
        """Return the network with its pretrained weights.

        Raises:
            OSError: If the weights cannot be read, are not safetensors, or do not match the configuration.
        """
        from transformers import AutoModelForTextEncoding

        config = self.config
        # transformers lists every unused tensor, such as those of CLIP's image tower.
        with self._reading() as location, without_messages("transformers.modeling_utils", "LOAD REPORT"):
            network, info = AutoModelForTextEncoding.from_pretrained(
                location,
                config=config,
                dtype=weight_dtype(self.dtype, self.model),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=is_here(location),
                output_loading_info=True,
            )
            missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
            if missing:
                raise OSError(f"{len(missing)} tensors are missing ({name_first(missing)})")
        return network

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> tuple[Float[Tensor, "batch length dim"], Bool[Tensor, "batch length"]]:
        """Return token embeddings, 0 at padding, and a mask that is true at text tokens, without gradients."""
        if self._cached_on != self.anchor.device:
            self._cache, self._cached_on = TextCache(self._max_cached), self.anchor.device
        rows = self._cache.look_up(texts, self._encode_new)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        return pad_sequence(rows, batch_first=True).to(self.anchor.dtype), to_device(mask, self.anchor.device)

    def _encode_new(self, texts: list[str]) -> list[Float[Tensor, "length dim"]]:
        return encode_independently(*self.text_tokenizer.tokenize(texts), self.max_length, self._run)

    @contextmanager
    def _reading(self) -> Iterator[str]:
        location = locate_model(self.model, "text network")
        try:
            yield location
        except (OSError, RuntimeError, ValueError) as error:  # what transformers raises
            reason = one_line(error)
            raise OSError(
                f"The text network {self.model!r} could not be read: {reason}. Expected a text encoder that "
                "transformers supports without remote code, with tokenizer and safetensors weights, on the Hub or in a "
                "folder written by save_pretrained. Without a network connection, pass such a folder, or "
                "weights://all-minilm-l6-v2 after `synth2 weights all-minilm-l6-v2`."
            ) from error


class NewTextEncoder(TransformersTextEncoder):
    """Randomly initialized text encoder that is trained jointly with the generator.

    Args:
        config: Configuration of a Hugging Face model, such as ``{"model_type": "bert", "hidden_size": 192}``. The
            vocabulary size and special tokens come from the tokenizer.
        tokenizer: Folder of the tokenizer, such as one written by ``build_vocabulary``, or its Hub id.
        max_length: Maximum number of tokens per text, including special tokens; longer texts are truncated and counted.

    Raises:
        ValueError: If ``config`` has no ``model_type``.

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
        self.name = f"new-{config['model_type']}:{self._plan.fingerprint}"

    @property
    def tokenizer(self) -> Any:
        """Tokenizer read from the ``tokenizer`` argument."""
        return self._plan.tokenizer

    @property
    def config(self) -> Any:
        """Given configuration with the tokenizer's vocabulary size and special tokens."""
        return self._plan.config

    def build_network(self) -> Any:
        """Return a network initialized from torch's global random state."""
        from transformers import AutoModelForTextEncoding

        return AutoModelForTextEncoding.from_config(self.config)
