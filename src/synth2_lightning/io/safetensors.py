"""Read and write safetensors files."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from synth2_lightning.io.atomic import set_default_mode
from synth2_lightning.io.checkpoint_files import WAY_OUT, shorten
from synth2_lightning.io.paths import require_file


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a file of safetensors.

    Raises:
        ValueError: If it is none, or a damaged one.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "half.safetensors"
        >>> _ = path.write_bytes(b"PK")
        >>> read_safetensors(path)
        Traceback (most recent call last):
        ValueError: ... is no safetensors file, or a damaged one (...header too small...). Copy it again...
    """
    require_file(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or a damaged one ({shorten(error)}). {WAY_OUT}") from error


def write_safetensors(tensors: Mapping[str, Tensor], path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Write a file of safetensors.

    Args:
        tensors: On the CPU, contiguous, no two of them sharing memory.
        path: The file.
        notes: What its header says beside.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> write_safetensors({"scale": torch.ones(2)}, path)
        >>> read_safetensors(path)
        {'scale': tensor([1., 1.])}
    """
    try:
        save_file(dict(tensors), path, metadata=dict(notes or {}))
        set_default_mode(path)  # safetensors gives it to its owner alone
    except SafetensorError as error:  # its word for a full disk
        raise OSError(f"{path} cannot be written ({shorten(error)})") from error
