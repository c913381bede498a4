"""Pretrained language models of Hugging Face, and configurations of randomly initialized networks."""

import hashlib
import json
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import torch

from synth2_lightning.compat.transformers import cache_name, dequantizing
from synth2_lightning.io.extras import require_extra
from synth2_lightning.io.locations import is_here, locate_model
from synth2_lightning.io.messages import one_line
from synth2_lightning.io.precision import WeightType, weight_dtype

_NUM_CHECKED = 12
_Steps = tuple[torch.Tensor, torch.Tensor]


def read_language_model(
    location: str,
    gguf_file: str | None,
    dtype: WeightType,
    attn_implementation: str | None,
) -> Any:
    """Read a causal language model; GGUF weights are dequantized, so that gradients flow through them.

    Args:
        location: A folder, or an id on the Hub; the weights must be safetensors or GGUF.
        gguf_file: Name of a GGUF file in it.
        dtype: Precision of the weights.
        attn_implementation: Attention kernel of transformers.
    """
    if gguf_file is not None:
        require_extra("gguf", "captions")
        require_extra("accelerate", "captions")
    from transformers import AutoConfig, AutoModelForCausalLM

    if gguf_file is None:
        check_config(AutoConfig.from_pretrained(location, trust_remote_code=False), location)
    model = AutoModelForCausalLM.from_pretrained(
        location,
        gguf_file=gguf_file,
        quantization_config=dequantizing() if gguf_file else None,
        dtype=weight_dtype(dtype, location),
        attn_implementation=attn_implementation,
        use_safetensors=None if gguf_file else True,
        trust_remote_code=False,
        local_files_only=is_here(location),
    )
    check_language_model(model, location)
    return model


def check_config(config: Any, name: str) -> None:
    """Raise if a configuration of transformers is not that of a decoder-only language model.

    Raises:
        ValueError: If transformers has no causal language model for it, or the model has an encoder.

    Example:
        >>> from transformers import AutoConfig
        >>> check_config(AutoConfig.for_model("t5"), "t5-small")
        Traceback (most recent call last):
        ValueError: The language model t5-small (t5) has an encoder; expected a decoder-only model...
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if getattr(config, "is_encoder_decoder", False):
        raise _unfit(name, config, "has an encoder")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise _unfit(name, config, "cannot generate text: transformers has no causal language model of this type")


@torch.no_grad()
def check_language_model(model: Any, name: str) -> None:
    """Raise if a language model is not causal, or if its key/value cache or padding changes its logits.

    Runs the model on a few tokens. Logits must not depend on later tokens (as BERT's do without ``is_decoder``), and
    must be the same with and without key/value cache and padding.

    Raises:
        ValueError: If one of the comparisons fails.

    Example:
        >>> from transformers import AutoModelForCausalLM, BertConfig
        >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        >>> check_language_model(AutoModelForCausalLM.from_config(BertConfig(**sizes, is_decoder=True)), "tiny")
    """
    from transformers import GenerationConfig

    was_training, published = model.training, model.generation_config
    model.eval()
    model.generation_config = GenerationConfig()  # published settings, such as beams, would mix with those of the check
    try:
        embeddings = model.get_input_embeddings()
        ids = torch.arange(2 * _NUM_CHECKED, device=embeddings.weight.device) % embeddings.num_embeddings
        embeds = embeddings(ids).view(2, _NUM_CHECKED, -1)
        half = _NUM_CHECKED // 2
        changed = torch.cat([embeds[:1, :half], embeds[1:, half:]], dim=1)
        logits = model(inputs_embeds=torch.cat([embeds[:1], changed]), use_cache=False).logits[:, :half]
        # Random weights have nearly uniform attention: the effect of a later token is small, yet above rounding.
        is_not_causal = _differ(logits[0], logits[1], tolerance=3e-5)
        alone = _logits_of_two_steps(model, embeds[:1, half:], torch.ones_like(ids[None, :half]))
        padding = embeds[1:, :half]
        mask = torch.arange(_NUM_CHECKED, device=ids.device)[None] >= half
        padded = _logits_of_two_steps(model, torch.cat([padding, embeds[:1, half:]], dim=1), mask.long())
    except (AttributeError, KeyError, IndexError, NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        reason = one_line(error)
        raise _unfit(
            name, model.config, f"cannot generate from input embeddings ({type(error).__name__}: {reason})"
        ) from error
    finally:
        model.train(was_training)
        model.generation_config = published
    if is_not_causal:
        hint = "; set is_decoder: true in its config" if hasattr(model.config, "is_decoder") else ""
        raise _unfit(name, model.config, f"attends to later tokens, so it is not causal{hint}")
    if any(map(_differ, *alone)):
        raise _unfit(name, model.config, "has other logits with a key/value cache than without")
    if any(map(_differ, *padded)):
        raise _unfit(name, model.config, "has other logits with padding than without")


def _logits_of_two_steps(model: Any, embeds: torch.Tensor, mask: torch.Tensor) -> tuple[_Steps, _Steps]:
    """Return logits of two greedy steps by ``generate``, and of the same tokens without cache and padding."""
    from transformers import Cache, GenerationConfig

    settings = GenerationConfig(
        max_new_tokens=2, min_new_tokens=2, output_logits=True, return_dict_in_generate=True, pad_token_id=0
    )
    output = model.generate(inputs_embeds=embeds, attention_mask=mask, generation_config=settings)
    if not isinstance(output[cache_name()], Cache):
        raise TypeError(f"its cache is {type(output[cache_name()]).__name__}, not the Cache of transformers")
    first, second = (logits[0] for logits in output.logits)
    generated = model.get_input_embeddings()(output.sequences[:, :1])
    sequence = torch.cat([embeds[:, mask[0].bool()], generated], dim=1)
    expected = model(inputs_embeds=sequence, use_cache=False).logits[0, -2:]
    return (first, second), (expected[0], expected[1])


def _differ(first: torch.Tensor, second: torch.Tensor, tolerance: float = 1e-3) -> bool:
    """Whether logits differ by more than rounding; in half precision rounding may route a token to other experts."""
    if not first.dtype == second.dtype == torch.float32:  # ``generate`` returns float32 logits for half precision
        tolerance = 0.3
    first, second = first.float(), second.float()
    return bool((first - second).norm() > tolerance * (first - first.mean()).norm())


def _unfit(name: str, config: Any, reason: str) -> ValueError:
    return ValueError(
        f"The language model {name} ({config.model_type}) {reason}; expected a decoder-only model with a key/value "
        "cache, such as Llama, Qwen, Gemma, GPT-2 or SmolLM."
    )


class NewNetwork:
    """Tokenizer and configuration of a randomly initialized network.

    Args:
        config: Configuration of a Hugging Face model, such as
            ``{"model_type": "gpt2", "n_embd": 192, "n_layer": 3, "n_head": 4}``. Vocabulary size and special tokens are
            taken from the tokenizer.
        tokenizer: Location of the tokenizer, or its id on the Hub.
        owner: Name of the class with the argument ``config``, for messages.

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
                "'llama' for a language model or 'bert' for a text encoder."
            )
        self._model_type = str(config["model_type"])
        self._settings = {key: value for key, value in config.items() if key != "model_type"}
        self._location = tokenizer
        self._owner = owner

    @cached_property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits of a hash of the given configuration and the vocabulary."""
        content = [self._model_type, self._settings, self.tokenizer.get_vocab()]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]

    @cached_property
    def tokenizer(self) -> Any:
        """The loaded tokenizer."""
        from transformers import AutoTokenizer

        location = locate_model(self._location, "tokenizer")
        return AutoTokenizer.from_pretrained(location, trust_remote_code=False, local_files_only=is_here(location))

    @cached_property
    def config(self) -> Any:
        """The given configuration, with the tokenizer's vocabulary.

        Raises:
            ValueError: If the type is unknown, or a key does not belong to it.
        """
        from transformers import CONFIG_MAPPING, AutoConfig

        vocabulary = {
            "vocab_size": len(self.tokenizer),
            "bos_token_id": self.tokenizer.bos_token_id,
            "eos_token_id": self.tokenizer.eos_token_id,
            "pad_token_id": self.tokenizer.pad_token_id,
        }
        try:
            default = AutoConfig.for_model(self._model_type)
        except ValueError as error:
            similar = get_close_matches(self._model_type, list(CONFIG_MAPPING)) or ["llama", "qwen3", "gpt2"]
            raise ValueError(
                f"{self._owner}.config has the model_type {self._model_type!r}, which transformers does not have; "
                f"expected one such as {', '.join(similar)}."
            ) from error
        known = {key for key in default.to_dict() | default.attribute_map if key[0] != "_"} - set(vocabulary)
        for key in self._settings:
            if key not in known:
                expected = ", ".join(get_close_matches(key, known)) or f"one of {', '.join(sorted(known))}"
                raise ValueError(
                    f"{self._owner}.config has the key {key!r}, which a {self._model_type!r} model does not have or "
                    f"takes from the tokenizer; expected {expected}."
                )
        try:
            return AutoConfig.for_model(self._model_type, **self._settings, **vocabulary)
        except Exception as error:  # configurations raise errors of many types
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise ValueError(
                f"{self._owner}.config is not valid for a {self._model_type!r} model: {reason}. Expected values of the "
                "types in the configuration class of transformers."
            ) from error
