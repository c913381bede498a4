"""Safe reading and consolidation of sharded checkpoints (torch.distributed.checkpoint)."""

import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.state_dict_loader import load

from synth2_lightning.export.sharded_index import read_index
from synth2_lightning.io.atomic import write_atomically
from synth2_lightning.io.messages import one_line
from synth2_lightning.io.safetensors import write_safetensors

_INDEX = ".metadata"  # written by torch, a pickle: the file and offset of each part of each tensor
_REST = "meta.pt"  # written by Lightning: all but weights and optimizers


def is_sharded(path: Path) -> bool:
    """Return whether a checkpoint is a folder that ``ModelParallelStrategy`` or ``FSDPStrategy`` wrote."""
    return (path / _REST).is_file()  # the same test as Lightning's


def check_not_sharded(path: Path) -> None:
    """Raise on a sharded checkpoint where a single file is required.

    Raises:
        IsADirectoryError: If the checkpoint is sharded.
    """
    if is_sharded(path):
        raise IsADirectoryError(
            f"The checkpoint {path} is sharded (a folder); expected a single file. Consolidate it first: "
            f"synth2 consolidate {path} --out {path.with_name(f'{path.stem}-merged.ckpt')}"
        )


def consolidate(folder: Path, file: Path) -> int:
    """Merge a sharded checkpoint into one file, written atomically.

    Only plain values and tensors are unpickled: a pickle that names anything else is refused.

    Args:
        folder: The checkpoint.
        file: ``.safetensors`` for the trained weights only; ``.ckpt`` for the complete checkpoint, from which a run
            with any number of processes can resume.

    Returns:
        Number of trained tensors.

    Raises:
        FileExistsError: If the file exists.
        FileNotFoundError: If the folder is not a sharded checkpoint, or a part of it is missing.
        ValueError: If the file has another suffix, or the checkpoint is damaged or may hold code.
        OSError: If the file cannot be written.

    Example:
        >>> consolidate(Path("nothing"), Path("model.safetensors"))
        Traceback (most recent call last):
        FileNotFoundError: There is no sharded checkpoint at nothing...
    """
    if file.suffix not in (".safetensors", ".ckpt"):
        raise ValueError(
            f"{file} ends in {file.suffix!r}; expected .safetensors for the weights, or .ckpt for a full checkpoint."
        )
    _check_new(file)
    checkpoint = read_sharded(folder, weights_only=file.suffix != ".ckpt")

    def write(draft: Path) -> None:
        _check_new(file)  # another process may have written it in the meantime
        _save(checkpoint, file.suffix, draft)

    write_atomically(file, write)
    return len(checkpoint["state_dict"])


def _check_new(file: Path) -> None:
    if file.exists():
        raise FileExistsError(f"{file} exists. Expected a new file: name another, or remove it.")


def read_sharded(folder: Path, weights_only: bool = False) -> dict[str, Any]:
    """Return a sharded checkpoint in the format of a single process.

    Args:
        folder: The checkpoint.
        weights_only: Skip the optimizers' states, which are twice as large as the weights, and all else.

    Raises:
        FileNotFoundError: If the folder is not a sharded checkpoint, or a part of it is missing.
        ValueError: If it is damaged or may hold code.
    """
    if not is_sharded(folder):
        raise FileNotFoundError(
            f"There is no sharded checkpoint at {folder}; expected a folder with {_INDEX} and {_REST}, as "
            "ModelParallelStrategy and FSDPStrategy write it, such as runs/version_0/checkpoints/last.ckpt. A "
            "checkpoint that is a file is already consolidated."
        )
    with _explained(folder):
        rest = {} if weights_only else torch.load(folder / _REST, map_location="cpu", weights_only=True)
        reader = _SafeReader(folder)
        index = reader.read_metadata()
        wanted = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype)
            if isinstance(entry, TensorStorageMetadata)
            else None
            for name, entry in index.state_dict_metadata.items()
            if not weights_only or index.planner_data[name][0] == "state_dict"
        }
        _load(wanted, reader)
    content = _nest({index.planner_data[name]: value for name, value in wanted.items()})
    optimizers = [content[name] for name in sorted(content) if name.startswith("optimizer_")]
    states = {} if weights_only else {"optimizer_states": [{"state": {}, **optimizer} for optimizer in optimizers]}
    return rest | {"state_dict": content["state_dict"]} | states


def check_sharded(folder: Path) -> None:
    """Raise on a sharded checkpoint that may hold code; to be called before torch's own reader, which would run it.

    Tensors are not read.

    Raises:
        FileNotFoundError: If a part of it is missing.
        ValueError: If it is damaged or may hold code.
    """
    with _explained(folder):
        torch.load(folder / _REST, map_location="cpu", weights_only=True, mmap=True)
        reader = _SafeReader(folder)
        entries = reader.read_metadata().state_dict_metadata
        _load({name: None for name, entry in entries.items() if not isinstance(entry, TensorStorageMetadata)}, reader)


def _load(wanted: dict[str, Any], reader: "_SafeReader") -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        load(wanted, storage_reader=reader, planner=_SafePlanner(), no_dist=True)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (Exception, CheckpointException) as error:  # torch raises unrelated exception types
        cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
        if isinstance(cause, FileNotFoundError):
            raise FileNotFoundError(
                f"The sharded checkpoint {folder} lacks {cause.filename}; expected the files of all processes. Copy "
                "the complete folder, from every machine if they have no shared file system."
            ) from error
        reason = one_line(cause) or type(cause).__name__
        raise ValueError(
            f"The sharded checkpoint {folder} cannot be read: {reason}. Expected a complete one that `synth2 fit` "
            "wrote. Copy it again, or use an earlier one."
        ) from error


def _save(checkpoint: dict[str, Any], suffix: str, file: Path) -> None:
    try:
        torch.save(checkpoint, file) if suffix == ".ckpt" else write_safetensors(checkpoint["state_dict"], file)
    except RuntimeError as error:  # raised on a full disk
        raise OSError(str(error).partition("\n")[0]) from error


class _SafeReader(FileSystemReader):
    """Reads the index, a pickle, without running code; torch itself reads the tensors safely."""

    def read_metadata(self, *_: object, **__: object) -> Metadata:
        index = read_index(Path(self.path) / _INDEX)
        index.storage_meta = StorageMeta(load_id=self.load_id)
        return index


class _SafePlanner(DefaultLoadPlanner):
    """Reads values other than tensors, such as learning rates, without running code."""

    def load_bytes(self, read_item: ReadItem, value: BytesIO) -> None:
        self.original_state_dict[read_item.dest_index.fqn] = torch.load(value, weights_only=True)


def _nest(flat: dict[tuple[str | int, ...], Any]) -> Any:
    """Return nested dictionaries of values by path; lists where the keys are integers."""
    if () in flat:
        return flat[()]
    inner: dict[str | int, dict[tuple[str | int, ...], Any]] = defaultdict(dict)
    for (first, *rest), value in flat.items():
        inner[first][tuple(rest)] = value
    if all(isinstance(step, int) for step in inner):
        return [_nest(inner[step]) for step in sorted(inner)]
    return {step: _nest(content) for step, content in inner.items()}
