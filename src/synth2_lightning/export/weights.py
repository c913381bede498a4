"""Weights in safetensors files; tied weights are stored once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from synth2_lightning.io.paths import require_file
from synth2_lightning.io.safetensors import write_safetensors

_FORMAT = {"format": "pt"}


def save_weights(weights: Mapping[str, Any], path: Path) -> None:
    """Write weights to a file; of tied weights, the first name holds the tensor and the others refer to it.

    Args:
        weights: A state dict.
        path: The file.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If a value is not a tensor.

    Example:
        >>> import torch
        >>> from tempfile import TemporaryDirectory
        >>> tied = torch.ones(2, 3)
        >>> with TemporaryDirectory() as folder:
        ...     save_weights({"words": tied, "head": tied}, Path(folder) / "model.safetensors")
        ...     list(load_weights(Path(folder) / "model.safetensors"))
        ['words', 'head']
    """
    other = [name for name, weight in weights.items() if not isinstance(weight, Tensor)]
    if other:
        raise ValueError(
            f"The model's state dict holds {other[0]!r}, a {type(weights[other[0]]).__name__}; expected only tensors, "
            "because safetensors hold nothing else. Make it a buffer, or remove it from the state dict."
        )
    first: dict[Any, str] = {}
    tied = {}
    for name, weight in weights.items():
        memory = (weight.untyped_storage().data_ptr(), weight.storage_offset(), weight.shape, weight.stride())
        holder = first.setdefault(memory, name) if weight.numel() else name
        if holder != name:
            tied[name] = holder
    unique = {name: weight.detach().cpu().contiguous().clone() for name, weight in weights.items() if name not in tied}
    write_safetensors(unique, path, _FORMAT | {f"tied:{name}": holder for name, holder in tied.items()})


def load_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights that :func:`save_weights` wrote.

    Raises:
        ValueError: If the file is damaged, or not a safetensors file.
    """
    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            metadata = file.metadata() or {}
        tied = {name.removeprefix("tied:"): holder for name, holder in metadata.items() if name.startswith("tied:")}
        return weights | {name: weights[holder] for name, holder in tied.items()}
    except (SafetensorError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged, or not a safetensors file ({error}). Expected the file that `synth2 export` wrote: "
            "copy or download it again."
        ) from error
