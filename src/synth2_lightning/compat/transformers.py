"""Private APIs of transformers, and names that it changed; checked with 5.5 and 5.24."""

from dataclasses import fields
from functools import cache
from typing import Any


def update_model_kwargs(model: Any, outputs: Any, model_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a model's next call, given those of its last call and its outputs.

    Calls ``GenerationMixin._update_model_kwargs_for_generation``, which models override; a ``custom_generate`` has no
    public counterpart.

    Args:
        model: A causal language model.
        outputs: Outputs of the last call.
        model_kwargs: Its arguments, besides tokens and embeddings.
    """
    updated: dict[str, Any] = model._update_model_kwargs_for_generation(outputs, model_kwargs)
    return updated


def attention_implementation(model: Any) -> str:
    """Return the implementation of attention of a model, as an argument of ``set_attn_implementation``.

    Reads ``PreTrainedConfig._attn_implementation``; there is a public setter, and no public getter.
    """
    implementation: str = model.config._attn_implementation
    return implementation


def supports_attention_functions(model: Any) -> bool:
    """Return whether a model calls attention functions that were registered with ``AttentionInterface``.

    Reads ``PreTrainedModel._supports_attention_backend``, which custom models are documented to set; models without it
    ignore registered functions, and there is no public attribute for it.
    """
    return bool(getattr(model, "_supports_attention_backend", False))


@cache
def cache_name() -> str:
    """Return the name of the key/value cache in arguments and outputs of models.

    ``cache`` in recent versions, where ``past_key_values`` causes a warning; the latter in older ones.

    Example:
        >>> cache_name() in ("cache", "past_key_values")
        True
    """
    from transformers.modeling_outputs import CausalLMOutputWithPast

    names = {field.name for field in fields(CausalLMOutputWithPast)}
    return "cache" if "cache" in names else "past_key_values"


def find_cache(model_kwargs: dict[str, Any]) -> Any:
    """Return the key/value cache among the arguments of a model.

    It has the name :func:`cache_name`, except for Mamba in older versions, where it is ``cache_params``.

    Example:
        >>> find_cache({cache_name(): "cache", "use_cache": True})
        'cache'
    """
    return model_kwargs[cache_name() if cache_name() in model_kwargs else "cache_params"]


def dequantizing() -> Any:
    """Return the ``quantization_config`` with which transformers dequantizes the weights of a GGUF file.

    None in versions before 5.17, which have no ``GgufConfig`` and always dequantize.

    Example:
        >>> getattr(dequantizing(), "dequantize", True)
        True
    """
    import transformers

    return transformers.GgufConfig(dequantize=True) if hasattr(transformers, "GgufConfig") else None
