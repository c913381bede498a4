"""Read and write safetensors files."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from synth2_lightning.io.atomic import set_default_mode
from synth2_lightning.io.checkpoint_files import RECOVERY, shorten
from synth2_lightning.io.paths import require_file


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ValueError: If it is damaged, or not a safetensors file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "half.safetensors"
        >>> _ = path.write_bytes(b"PK")
        >>> read_safetensors(path)
        Traceback (most recent call last):
        ValueError: ... is not an intact safetensors file (...header too small...); expected tensors. Copy it again...
    """
    require_file(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not an intact safetensors file ({shorten(error)}); expected tensors. {RECOVERY}"
        ) from error


def write_safetensors(tensors: Mapping[str, Tensor], path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file.

    Args:
        tensors: Contiguous tensors on the CPU that do not share memory.
        path: The file.
        notes: Metadata for the header.

    Raises:
        OSError: If the file cannot be written.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> write_safetensors({"scale": torch.ones(2)}, path)
        >>> read_safetensors(path)
        {'scale': tensor([1., 1.])}
    """
    try:
        save_file(dict(tensors), path, metadata=dict(notes or {}))
        set_default_mode(path)  # safetensors creates files that only their owner can read
    except SafetensorError as error:  # raised for a full disk
        raise OSError(f"{path} cannot be written ({shorten(error)})") from error
