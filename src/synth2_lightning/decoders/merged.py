"""Export of a fine-tuned language model as a folder of transformers."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synth2_lightning.io.atomic import write_files

_ADAPTER = "default"  # of PEFT


def save_language_model(folder: Path, lm: Any, tokenizer: Any, generation_config: Any) -> None:
    """Write a language model and its tokenizer, for ``from_pretrained`` of transformers and for other engines.

    Low-rank updates are merged, and weights of a GGUF file are written dequantized, in their present type. Generation
    ends at the tokenizer's end-of-text token, and at those of the settings. The weights are safetensors.

    Args:
        folder: Output folder; created if it does not exist.
        lm: Causal language model of transformers, not modified.
        tokenizer: Its tokenizer.
        generation_config: Its published settings of generation.

    Raises:
        OSError: If the folder cannot be written.
    """
    config = deepcopy(lm.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # of a GGUF file; transformers writes no model that has one
    with torch.device("meta"):
        model = type(lm)(config)
    model.load_state_dict(merge_updates(lm), assign=True)
    model.tie_weights()
    model.generation_config = deepcopy(generation_config)
    ends = model.generation_config.eos_token_id
    ids = [tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])]
    model.generation_config.eos_token_id = list(dict.fromkeys(number for number in ids if number is not None))
    with write_files(folder) as draft:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)


@torch.no_grad()
def merge_updates(lm: Any) -> dict[str, Tensor]:
    """Return the state dict of a language model in which the low-rank updates of PEFT are added to their weights.

    Example:
        >>> from peft import LoraConfig, inject_adapter_in_model
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
        >>> _ = inject_adapter_in_model(LoraConfig(r=1, target_modules=["0"]), model)
        >>> list(merge_updates(model))
        ['0.weight']
    """
    merged = {
        name.replace(".base_layer.", "."): weight
        for name, weight in lm.state_dict().items()
        if not any(part.startswith("lora_") for part in name.split("."))
    }
    for name, layer in lm.named_modules():
        if hasattr(layer, "get_delta_weight"):
            weight = merged[f"{name}.weight"]
            update = layer.get_delta_weight(_ADAPTER)
            merged[f"{name}.weight"] = (weight.float() + update.float()).to(weight.dtype)
    return merged
