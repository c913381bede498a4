"""Files of weights, checked and read without running what they name: torch's checkpoints, and safetensors."""

import logging
import math
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from synth2_lightning.files import require_file, set_default_mode

_logger = logging.getLogger(__name__)
_MODE = r"'mode': '(min|max)'"  # in the keys under which callbacks save their states
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


def checksum(path: Path) -> str:
    """Return a checksum of a checkpoint's content, from the checksums in the file; of a folder, of all its files.

    No tensor is read. Equal content has equal checksums, as have copies of one file.

    Raises:
        OSError: If it cannot be read.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> torch.save({"global_step": 7}, folder / "one.ckpt")
        >>> torch.save({"global_step": 8}, folder / "other.ckpt")
        >>> checksum(folder / "one.ckpt") == checksum(folder / "other.ckpt")
        False
    """
    total = 0
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_file():
            continue
        try:
            with zipfile.ZipFile(file) as archive:
                content: object = [(entry.filename, entry.CRC, entry.file_size) for entry in archive.infolist()]
        except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError):  # damaged, or of another kind
            content = file.stat().st_size
        total = zlib.crc32(repr((file.relative_to(path).as_posix(), content)).encode(), total)
    return f"{total:08x}"


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


def read_checkpoints(folder: Path) -> Iterator[tuple[Path, dict[str, Any] | Exception]]:
    """Read all checkpoints of a folder, one at a time; what cannot be read comes as the error.

    Example:
        >>> list(read_checkpoints(Path("gone")))
        []
    """
    for path in sorted(folder.glob("*.ckpt")):
        if path.is_symlink() and (path.resolve().parent == folder.resolve() or not path.exists()):
            continue  # what it links to comes itself, or is gone
        try:
            if (path / "latest").is_file():
                raise ValueError(f"{path} is DeepSpeed's, which unpickles it: if it is yours, name it itself.")
            yield path, read_checkpoint(path / "meta.pt" if path.is_dir() else path)
        except (ValueError, TypeError, OSError) as error:
            yield path, error


def find_best_checkpoint(folder: Path, monitor: str | None = None) -> Path | None:
    """Return the checkpoint of a folder with the best score; none if no score was recorded.

    The scores are those that ``ModelCheckpoint`` recorded in the checkpoints under the names of their files. No file's
    time and no path in a checkpoint counts. Scores that are not finite are left out. Where no score was recorded and no
    monitor is given, it is the newest of those whose names begin with ``best``.

    Args:
        folder: Of checkpoints.
        monitor: Name of the score; by default the one that the first callback of the run monitored.

    Raises:
        ValueError: If a checkpoint that may be the best one is damaged.

    Example:
        >>> find_best_checkpoint(Path("gone")) is None
        True
    """
    own: dict[_Score, dict[Path, float]] = {}
    claimed: dict[_Score, dict[Path, float]] = {}
    steps: dict[Path, int] = {}
    damaged: dict[Path, Exception] = {}
    for path, content in read_checkpoints(folder):
        if isinstance(content, Exception):
            damaged[path] = content
            continue
        steps[path] = _read_step(content)
        for score, name, value in _list_scores(content):
            (own if name == path.name else claimed).setdefault(score, {})[folder / name] = value
    wanted = [score for score in {**own, **claimed} if monitor in (None, score.monitor)]
    if len(wanted) > 1:
        names = " and ".join(map(str, wanted))
        _logger.warning("%s has checkpoints by %s; the best by the first is taken.", folder, names)
    # What a file says of itself counts before what others say of it.
    scores = {**claimed.get(wanted[0], {}), **own.get(wanted[0], {})} if wanted else {}
    present = {path: value for path, value in scores.items() if path in steps and math.isfinite(value)}
    for path, error in damaged.items():
        if path in scores or not path.name.startswith(("step=", "last")):
            raise ValueError(
                f"The checkpoint that may be the best one cannot be used: {error} Name the one that is meant itself: "
                f"{', '.join(str(path) for path in sorted(present)) or 'none here has a score'}."
            )
    if not wanted and monitor is None:
        present = {path: 0.0 for path in steps if path.name.startswith("best")}
    sign = 1 if wanted and wanted[0].mode == "max" else -1
    return max(present, key=lambda path: (sign * present[path], steps[path], path.name), default=None)


def find_newest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint of a folder with the most steps; of two the one that ``last.ckpt`` is or links to.

    Raises:
        ValueError: If there are checkpoints, and all are damaged.

    Example:
        >>> find_newest_checkpoint(Path("gone")) is None
        True
    """
    last = (folder / "last.ckpt").resolve()
    contents = dict(read_checkpoints(folder))
    errors = [content for content in contents.values() if isinstance(content, Exception)]
    steps = {path: _read_step(content) for path, content in contents.items() if not isinstance(content, Exception)}
    if errors and not steps:
        raise ValueError(f"No checkpoint in {folder} can be used: {' '.join(map(str, errors))}")
    for error in errors:
        _logger.warning("A checkpoint is left out: %s", error)
    return max(steps, key=lambda path: (steps[path], path.resolve() == last, path.name), default=None)


class _Score(NamedTuple):
    monitor: str
    mode: str

    def __str__(self) -> str:
        return f"{self.mode} {self.monitor}"


def _list_scores(content: Mapping[str, Any]) -> Iterator[tuple[_Score, str, float]]:
    """Give score, file name and value of all that callbacks recorded; the content may come from elsewhere."""
    states = content.get("callbacks")
    for key, state in states.items() if isinstance(states, Mapping) else ():
        if not isinstance(key, str) or not isinstance(state, Mapping):
            continue
        monitor, entries, mode = state.get("monitor"), state.get("best_k_models"), re.search(_MODE, key)
        if not isinstance(monitor, str) or not isinstance(entries, Mapping) or not mode or monitor in ("step", "epoch"):
            continue
        for path, value in entries.items():
            is_number = isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)
            if isinstance(path, str) and is_number:
                with suppress(OverflowError, RuntimeError):  # no number that can be compared
                    yield _Score(monitor, mode[1]), Path(path).name, float(value)


def _read_step(content: Mapping[str, Any]) -> int:
    step = content.get("global_step", 0)
    return step if isinstance(step, int) else 0


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
        set_default_mode(path)  # safetensors gives it to its owner alone
    except SafetensorError as error:  # its word for a full disk
        raise OSError(f"{path} cannot be written ({_shorten(error)})") from error


def _shorten(error: Exception) -> str:
    """Say the reason without torch's advice, which is to trust the file."""
    lines = [line for line in str(error).splitlines() if "weights_only" not in line and line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:200]}"


_EXPECTED = "Expected what `synth2 fit` wrote, such as runs/version_0/checkpoints/last.ckpt, or weights alone."
