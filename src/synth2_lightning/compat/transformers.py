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


def run_network(network: Any, has_padding: bool, **inputs: Any) -> Any:
    """Return the outputs of a network, for which transformers does not read the attention mask from the device.

    It reads it in every call to find out whether there is padding, or without a mask the positions, to find out whether
    rows hold several texts. Both wait for a GPU. Here the caller knows: the network runs with a mask function that does
    not read, registered with ``AttentionMaskInterface``. Its name is set as ``PreTrainedConfig._attn_implementation``
    during the call; the public setter would go through all modules of the network. Networks with another attention than
    torch's are called as they are, without a mask if there is no padding.

    Args:
        network: A network of transformers.
        has_padding: Whether the attention mask is 0 anywhere.
        **inputs: Its arguments, with an ``attention_mask`` of two dimensions.
    """
    if not supports_attention_functions(network) or attention_implementation(network) != "sdpa":
        return network(**inputs if has_padding else inputs | {"attention_mask": None})
    network.config._attn_implementation = _register_masks()[has_padding]
    try:
        return network(**inputs)
    finally:
        network.config._attn_implementation = "sdpa"


@cache
def _register_masks() -> tuple[str, str]:
    """Register attention without and with padding, and return their names."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def without_padding(*args: Any, **kwargs: Any) -> Any:
        return sdpa_mask(*args, **kwargs | {"attention_mask": None})

    def with_padding(*args: Any, **kwargs: Any) -> Any:
        never = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        return sdpa_mask(*args, **kwargs | never)

    names = "sdpa_without_padding", "sdpa_with_padding"
    for name, mask in zip(names, (without_padding, with_padding), strict=True):
        AttentionInterface.register(name, sdpa_attention_forward)
        AttentionMaskInterface.register(name, mask)
    return names


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
