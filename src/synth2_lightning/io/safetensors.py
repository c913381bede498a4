"""Read and write safetensors files; tied weights are stored once.

``safetensors.torch.save_model`` and ``load_model`` were tried with safetensors 0.8.0. They need a module, and
``synth2 consolidate`` has only a state dict; ``load_model`` omits all but one name of tied weights, so that a check of
the names fails; ``save_model`` raises on parameters that are views of one tensor.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from synth2_lightning.io.atomic import set_default_mode
from synth2_lightning.io.checkpoint_files import RECOVERY, shorten
from synth2_lightning.io.paths import require_file


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ValueError: If it is damaged, or not a safetensors file.
    """
    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            notes = file.metadata() or {}
        return tensors | {key[5:]: tensors[name] for key, name in notes.items() if key.startswith("tied:")}
    except (SafetensorError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged, or not a safetensors file ({shorten(error)}); expected tensors. {RECOVERY}"
        ) from error


def write_safetensors(tensors: Mapping[str, object], path: Path) -> None:
    """Write a safetensors file; of tied tensors, the first name holds the values and the others refer to it.

    Args:
        tensors: A state dict.
        path: The file.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If a value is not a tensor.

    Example:
        >>> import tempfile, torch
        >>> path, tied = Path(tempfile.mkdtemp()) / "model.safetensors", torch.ones(2)
        >>> write_safetensors({"words": tied, "head": tied}, path)
        >>> read_safetensors(path)
        {'words': tensor([1., 1.]), 'head': tensor([1., 1.])}
    """
    first: dict[object, str] = {}
    unique, notes = {}, {"format": "pt"}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(
                f"The model's state dict holds {name!r}, a {type(tensor).__name__}; expected only tensors, because "
                "safetensors hold nothing else. Make it a buffer, or remove it from the state dict."
            )
        start = tensor.untyped_storage().data_ptr(), tensor.storage_offset()
        memory = (*start, tensor.dtype, tensor.shape, tensor.stride())
        holder = first.setdefault(memory, name) if tensor.numel() else name
        if holder == name:
            unique[name] = tensor.detach().cpu().contiguous().clone()
        else:
            notes[f"tied:{name}"] = holder
    try:
        save_file(unique, path, metadata=notes)
        set_default_mode(path)  # safetensors creates files that only their owner can read
    except SafetensorError as error:  # raised for a full disk
        raise OSError(f"{path} cannot be written ({shorten(error)})") from error
