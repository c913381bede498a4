"""Trained weights as safetensors, bit by bit, tied ones once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from synth2_lightning.files import require_file
from synth2_lightning.weight_files import write_safetensors

_FORMAT = {"format": "pt"}


def save_weights(weights: Mapping[str, Any], path: Path) -> None:
    """Write weights; of names that share one tensor (tied embeddings), the first holds it and the others point to it.

    Args:
        weights: As ``state_dict()`` gives them.
        path: The file.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If one of them is no tensor.

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
            f"The model's state holds {other[0]!r}, a {type(weights[other[0]]).__name__}; expected tensors alone, "
            "because nothing else can be shared without code. Keep it in a buffer, or out of the state."
        )
    first: dict[Any, str] = {}
    tied = {}
    for name, weight in weights.items():
        place = (weight.untyped_storage().data_ptr(), weight.storage_offset(), weight.shape, weight.stride())
        holder = first.setdefault(place, name) if weight.numel() else name
        if holder != name:
            tied[name] = holder
    whole = {name: weight.detach().cpu().contiguous().clone() for name, weight in weights.items() if name not in tied}
    write_safetensors(whole, path, _FORMAT | {f"tied:{name}": holder for name, holder in tied.items()})


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read what :func:`save_weights` wrote.

    Raises:
        ValueError: If the file is damaged, or no safetensors.
    """
    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            notes = file.metadata() or {}
        tied = {name.removeprefix("tied:"): holder for name, holder in notes.items() if name.startswith("tied:")}
        return weights | {name: weights[holder] for name, holder in tied.items()}
    except (SafetensorError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged, or no safetensors ({error}). Expected the file that `synth2 export` wrote: copy or "
            "download it again."
        ) from error
