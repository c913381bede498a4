"""Language models of Hugging Face with weights, and networks that start from nothing."""

from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal

import torch

from synth2_lightning.locations import is_here, locate_model


def read_language_model(
    location: str,
    gguf_file: str | None,
    dtype: Literal["float32", "bfloat16", "float16"],
    attn_implementation: str | None = None,
) -> Any:
    """Read a causal language model; GGUF weights are unpacked, since packed ones cannot be learnt through.

    Args:
        location: A folder, or a name on the Hub; the weights must be safetensors or GGUF.
        gguf_file: Name of a GGUF file in it.
        dtype: Precision of the weights.
        attn_implementation: Attention kernel of transformers; ``None`` leaves the choice to transformers.
    """
    from transformers import AutoModelForCausalLM, GgufConfig

    return AutoModelForCausalLM.from_pretrained(
        location,
        gguf_file=gguf_file,
        quantization_config=GgufConfig(dequantize=True) if gguf_file else None,
        dtype=getattr(torch, dtype),
        attn_implementation=attn_implementation,
        use_safetensors=None if gguf_file else True,
        trust_remote_code=False,
        local_files_only=is_here(location),
    )


class NewNetwork:
    """The plan of a network that starts from nothing: a tokenizer, and a configuration that has its vocabulary.

    Args:
        config: The configuration of a Hugging Face model, such as
            ``{"model_type": "gpt2", "n_embd": 192, "n_layer": 3, "n_head": 4}``. Size of the vocabulary and special
            tokens are the tokenizer's.
        tokenizer: Where the tokenizer lies, or its Hub name.
        owner: Whose argument ``config`` is, for the messages.

    Raises:
        ValueError: If ``config`` lacks ``model_type``.

    Example:
        >>> plan = NewNetwork({"model_type": "bert"}, "package://synth2_lightning/scenes/vocabulary", "Example")
        >>> plan.config.vocab_size == len(plan.tokenizer)
        True
    """

    def __init__(self, config: dict[str, Any], tokenizer: str, owner: str) -> None:
        if "model_type" not in config:
            raise ValueError(
                f"{owner}.config has the keys {sorted(config)}; expected 'model_type' among them, such as "
                "'llama' for a language model or 'bert' for a text encoder, which says what the others mean."
            )
        self._model_type = str(config["model_type"])
        self._settings = {key: value for key, value in config.items() if key != "model_type"}
        self._location = tokenizer
        self._owner = owner

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer at the given place."""
        from transformers import AutoTokenizer

        location = locate_model(self._location, "tokenizer")
        return AutoTokenizer.from_pretrained(location, trust_remote_code=False, local_files_only=is_here(location))

    @cached_property
    def config(self) -> Any:
        """The given configuration, with the tokenizer's vocabulary.

        Raises:
            ValueError: If it has a key that such a model does not know.
        """
        from transformers import AutoConfig

        vocabulary = {
            "vocab_size": len(self.tokenizer),
            "bos_token_id": self.tokenizer.bos_token_id,
            "eos_token_id": self.tokenizer.eos_token_id,
            "pad_token_id": self.tokenizer.pad_token_id,
        }
        default = AutoConfig.for_model(self._model_type)
        known = {key for key in default.to_dict() | default.attribute_map if key[0] != "_"} - set(vocabulary)
        for key in self._settings:
            if key not in known:
                similar = ", ".join(get_close_matches(key, known)) or f"one of {', '.join(sorted(known))}"
                raise ValueError(
                    f"{self._owner}.config has the key {key!r}, which is not for a {self._model_type!r} model to "
                    f"set; expected {similar}. Vocabulary and special tokens are taken from the tokenizer."
                )
        return AutoConfig.for_model(self._model_type, **self._settings, **vocabulary)
