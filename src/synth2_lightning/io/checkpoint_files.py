"""Reading of checkpoint files without running code, and search for the best or newest one of a folder."""

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
from torch import Tensor

_logger = logging.getLogger(__name__)
_MODE = r"'mode': '(min|max)'"  # part of the state key of a ModelCheckpoint callback
RECOVERY = "Copy it again from an undamaged source, or use an earlier one."


def find_damage(path: Path) -> str | None:
    """Return a description of the damage of a checkpoint file; ``None`` if it is intact.

    ``torch.save`` writes a zip archive with a checksum (CRC-32) of every tensor.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # torch never compresses; a compressed record could fill the memory.
            compressed = [each.filename for each in archive.infolist() if each.compress_type != zipfile.ZIP_STORED]
            record = None if compressed else archive.testzip()
    # zipfile raises any of these on damaged archives.
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError, ValueError) as error:
        return str(error) or type(error).__name__
    if compressed:
        return f"its record {compressed[0]} is compressed, unlike those of a checkpoint"
    return f"its record {record} does not match its checksum" if record else None


def checksum(path: Path) -> str:
    """Return a checksum of a checkpoint file, or of all files of a checkpoint folder, from the checksums inside.

    No tensor is read. Copies and files of equal content have equal checksums.

    Raises:
        OSError: If the checkpoint cannot be read.
    """
    total = 0
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_file():
            continue
        content: list[tuple[str, int, int]] = []
        damaged = (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError)  # or of another format
        with suppress(*damaged), zipfile.ZipFile(file) as archive:
            content = [(entry.filename, entry.CRC, entry.file_size) for entry in archive.infolist()]
        record = file.relative_to(path).as_posix(), file.stat().st_size, content
        total = zlib.crc32(repr(record).encode(), total)
    return f"{total:08x}"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the tensors and plain values of a checkpoint file; tensors are memory-mapped.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is damaged, no checkpoint, or may contain code.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "last.ckpt"
        >>> torch.save({"global_step": 7}, path)
        >>> read_checkpoint(path)
        {'global_step': 7}
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint at {path}. {_EXPECTED}")
    if damage := find_damage(path):
        raise ValueError(f"The checkpoint {path} is damaged: {damage}. Expected an intact file. {RECOVERY}")
    with plain_values_only(path):
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(content, dict):
        raise ValueError(f"{path} contains {type(content).__name__}, not a checkpoint. {_EXPECTED}")
    return content


def read_checkpoints(folder: Path) -> Iterator[tuple[Path, dict[str, Any] | Exception]]:
    """Yield every checkpoint of a folder with its content, or with the error if it cannot be read."""
    for path in sorted(folder.glob("*.ckpt")):
        if path.is_symlink() and (path.resolve().parent == folder.resolve() or not path.exists()):
            continue  # the target is listed itself, or does not exist
        try:
            if (path / "latest").is_file():
                raise ValueError(
                    f"{path} is a DeepSpeed checkpoint, which is unpickled and can run code; expected another format. "
                    "If you trust it, name it itself instead of its folder."
                )
            yield path, read_checkpoint(path / "meta.pt" if path.is_dir() else path)
        except (ValueError, TypeError, OSError) as error:
            yield path, error


def find_best_checkpoint(folder: Path, monitor: str | None = None) -> Path | None:
    """Return the checkpoint of a folder with the best score; ``None`` if no score was recorded.

    The scores are those that ``ModelCheckpoint`` recorded in the checkpoints, by file name. Modification times and
    folders in recorded paths are ignored, as are scores that are not finite. Without a recorded score and a monitor, it
    is the newest checkpoint whose name begins with ``best``.

    Args:
        folder: Folder of checkpoints.
        monitor: Name of the score; by default that of the run's first callback.

    Raises:
        ValueError: If a checkpoint that may be the best one is damaged.
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
        _logger.warning("%s has checkpoints by %s; using the best one by the first score.", folder, names)
    # The score in a file takes precedence over scores of that file in other checkpoints.
    scores = {**claimed.get(wanted[0], {}), **own.get(wanted[0], {})} if wanted else {}
    present = {path: value for path, value in scores.items() if path in steps and math.isfinite(value)}
    for path, error in damaged.items():
        if path in scores or not path.name.startswith(("step=", "last")):
            raise ValueError(
                f"A checkpoint that may be the best one cannot be used: {error} Name one of the others: "
                f"{', '.join(str(path) for path in sorted(present)) or 'none has a score'}."
            )
    if not wanted and monitor is None:
        present = {path: 0.0 for path in steps if path.name.startswith("best")}
    sign = 1 if wanted and wanted[0].mode == "max" else -1
    return max(present, key=lambda path: (sign * present[path], steps[path], path.name), default=None)


def find_newest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint of a folder with the most steps; of equal ones that which ``last.ckpt`` is or links to.

    Raises:
        ValueError: If all checkpoints are damaged.
    """
    last = (folder / "last.ckpt").resolve()
    contents = dict(read_checkpoints(folder))
    errors = [content for content in contents.values() if isinstance(content, Exception)]
    steps = {path: _read_step(content) for path, content in contents.items() if not isinstance(content, Exception)}
    if errors and not steps:
        raise ValueError(f"No checkpoint in {folder} can be used: {' '.join(map(str, errors))}")
    for error in errors:
        _logger.warning("Skipped a checkpoint: %s", error)
    return max(steps, key=lambda path: (steps[path], path.resolve() == last, path.name), default=None)


class _Score(NamedTuple):
    monitor: str
    mode: str

    def __str__(self) -> str:
        return f"{self.mode} {self.monitor}"


def _list_scores(content: Mapping[str, Any]) -> Iterator[tuple[_Score, str, float]]:
    """Yield score, file name and value of all recorded scores; the content is not trusted."""
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
                with suppress(OverflowError, RuntimeError):  # not a real number
                    yield _Score(monitor, mode[1]), Path(path).name, float(value)


def _read_step(content: Mapping[str, Any]) -> int:
    step = content.get("global_step", 0)
    return step if isinstance(step, int) else 0


@contextmanager
def plain_values_only(path: Path) -> Iterator[None]:
    """Add the path to errors of ``torch.load(path, weights_only=True)`` inside the context.

    Raises:
        ValueError: If the file is damaged, or may contain code.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} contains more than tensors and plain values ({shorten(error)}), possibly code; "
            f"nothing was run. {_EXPECTED}"
        ) from error
    except (RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({shorten(error)}). {_EXPECTED}") from error


def shorten(error: Exception) -> str:
    """Return type and message of an error, without torch's advice to disable ``weights_only``."""
    lines = [line for line in str(error).splitlines() if "weights_only" not in line and line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:200]}"


_EXPECTED = "Expected a checkpoint of `synth2 fit`, such as runs/version_0/checkpoints/last.ckpt, or a file of weights."
