"""Files of weights, checked and read without running what they name: torch's checkpoints, and safetensors."""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from synth2_lightning.files import require_file

_WAY_OUT = "Copy it again from where it is whole, or take an earlier one."


def find_damage(path: Path) -> str | None:
    """Compare a checkpoint file with its checksums, and say what is wrong with it; ``None`` if nothing is.

    The checksum is the one that ``torch.save`` puts into its file, a zip archive, for every tensor (CRC-32).

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "half.ckpt"
        >>> _ = path.write_bytes(b"PK")
        >>> find_damage(path)
        'File is not a zip file'
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # torch packs nothing; what is packed may fill the memory.
            packed = [record.filename for record in archive.infolist() if record.compress_type != zipfile.ZIP_STORED]
            record = None if packed else archive.testzip()
    # zipfile tells of damage by what its steps stumble over.
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError, ValueError) as error:
        return str(error) or type(error).__name__
    if packed:
        return f"its record {packed[0]} is packed, as no checkpoint's is"
    return f"its record {record} does not have the checksum that was written with it" if record else None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint file, tensors and plain values only; tensors stay on the disk until they are used.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged, no checkpoint, or may hold code.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "last.ckpt"
        >>> torch.save({"global_step": 7}, path)
        >>> read_checkpoint(path)
        {'global_step': 7}
    """
    with checked_checkpoint(path):
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, no checkpoint. {_EXPECTED}")
    return content


@contextmanager
def checked_checkpoint(path: Path) -> Iterator[None]:
    """Refuse a damaged checkpoint file, and name the file in what torch says while it is read in the context.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged, or may hold code.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint at {path}. {_EXPECTED}")
    if damage := find_damage(path):
        raise ValueError(f"The checkpoint {path} is damaged: {damage}. Expected the file as it was written. {_WAY_OUT}")
    with plain_values_only(path):
        yield


@contextmanager
def plain_values_only(path: Path) -> Iterator[None]:
    """Name the file in what torch says of it, while the context reads it with ``weights_only=True``.

    Raises:
        ValueError: If it is damaged, or may hold code.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain values ({_shorten(error)}), which may be code; "
            f"nothing was run. {_EXPECTED}"
        ) from error
    except (RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({_shorten(error)}). {_EXPECTED}") from error


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
        raise ValueError(f"{path} is no safetensors file, or a damaged one ({_shorten(error)}). {_WAY_OUT}") from error


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
    except SafetensorError as error:  # its word for a full disk
        raise OSError(f"{path} cannot be written ({_shorten(error)})") from error


def _shorten(error: Exception) -> str:
    """Say the reason without torch's advice, which is to trust the file."""
    lines = [line for line in str(error).splitlines() if "weights_only" not in line and line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:200]}"


_EXPECTED = "Expected what `synth2 fit` wrote, such as runs/version_0/checkpoints/last.ckpt, or weights alone."
