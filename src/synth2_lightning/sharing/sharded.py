"""Checkpoints that many processes wrote side by side (torch.distributed.checkpoint), as one process would have."""

import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.state_dict_loader import load

from synth2_lightning.files import write_atomically
from synth2_lightning.sharing.sharded_index import read_index
from synth2_lightning.sharing.weights import save_weights

_INDEX = ".metadata"  # torch's, a pickle: which file holds which part of which tensor
_REST = "meta.pt"  # Lightning's: all but weights and optimizers


def is_sharded(path: Path) -> bool:
    """Whether a checkpoint is a folder that ``ModelParallelStrategy`` or ``FSDPStrategy`` wrote.

    Example:
        >>> is_sharded(Path("last.ckpt"))
        False
    """
    return (path / _REST).is_file()  # Lightning asks for no more


def refuse_sharded(path: Path) -> None:
    """Refuse a sharded checkpoint where only one that is a file can be read.

    Raises:
        IsADirectoryError: If it is one.
    """
    if is_sharded(path):
        raise IsADirectoryError(
            f"The checkpoint {path} is a folder that many processes wrote side by side; expected a file here. Merge "
            f"it first: synth2 consolidate {path} {path.with_name(f'{path.stem}-merged.ckpt')}"
        )


def consolidate(folder: Path, file: Path) -> int:
    """Merge a sharded checkpoint into one file; it appears whole or not at all.

    Nothing is unpickled but plain values and tensors: a pickle that names anything else is refused.

    Args:
        folder: The checkpoint.
        file: ``.safetensors`` for the trained weights alone; ``.ckpt`` for all that a run needs to go on, on one
            process or on many, or to be loaded.

    Returns:
        Number of trained tensors.

    Raises:
        FileExistsError: If the file is there.
        FileNotFoundError: If no sharded checkpoint is there, or a part of it is missing.
        ValueError: If the end of the file's name is another, or the checkpoint is damaged or may hold code.
        OSError: If the file cannot be written.

    Example:
        >>> consolidate(Path("nothing"), Path("model.safetensors"))
        Traceback (most recent call last):
        FileNotFoundError: There is no sharded checkpoint at nothing...
    """
    if file.suffix not in (".safetensors", ".ckpt"):
        raise ValueError(
            f"{file} ends in {file.suffix!r}; expected .safetensors, for the weights alone, or .ckpt, to go on with."
        )
    _refuse_taken(file)
    checkpoint = read_sharded(folder, whole=file.suffix == ".ckpt")

    def write(draft: Path) -> None:
        _refuse_taken(file)  # another process may have been quicker
        _save(checkpoint, file.suffix, draft)

    write_atomically(file, write)
    return len(checkpoint["state_dict"])


def _refuse_taken(file: Path) -> None:
    if file.exists():
        raise FileExistsError(f"{file} is there already. Expected a new file: name another, or remove it.")


def read_sharded(folder: Path, whole: bool = True) -> dict[str, Any]:
    """Read a sharded checkpoint as the one that a single process would have written, or its weights alone.

    Args:
        folder: The checkpoint.
        whole: Read all that a run needs to go on, such as the optimizers' states, twice as large as the weights.

    Raises:
        FileNotFoundError: If no sharded checkpoint is there, or a part of it is missing.
        ValueError: If it is damaged or may hold code.
    """
    if not is_sharded(folder):
        raise FileNotFoundError(
            f"There is no sharded checkpoint at {folder}; expected a folder with {_INDEX} and {_REST} in it, as "
            "ModelParallelStrategy and FSDPStrategy write it, such as runs/version_0/checkpoints/last.ckpt. A "
            "checkpoint that is a file needs no merging."
        )
    with _explained(folder):
        rest = torch.load(folder / _REST, map_location="cpu", weights_only=True) if whole else {}
        reader = _SafeReader(folder)
        index = reader.read_metadata()
        wanted = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype)
            if isinstance(entry, TensorStorageMetadata)
            else None
            for name, entry in index.state_dict_metadata.items()
            if whole or index.planner_data[name][0] == "state_dict"
        }
        _load(wanted, reader)
    content = _nest({index.planner_data[name]: value for name, value in wanted.items()})
    optimizers = [content[name] for name in sorted(content) if name.startswith("optimizer_")]
    states = {"optimizer_states": [{"state": {}, **optimizer} for optimizer in optimizers]} if whole else {}
    return rest | {"state_dict": content["state_dict"]} | states


def check_sharded(folder: Path) -> None:
    """Refuse a sharded checkpoint that may hold code, before Lightning reads it with torch's own reader, which runs it.

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
    except (Exception, CheckpointException) as error:  # torch raises errors of many families
        cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
        if isinstance(cause, FileNotFoundError):
            raise FileNotFoundError(
                f"The sharded checkpoint {folder} lacks {cause.filename}; expected the files of all processes. Copy "
                "the whole folder, from each machine's disk where they share none."
            ) from error
        reason = " ".join(str(cause).split())[:300] or type(cause).__name__
        raise ValueError(
            f"The sharded checkpoint {folder} cannot be read: {reason} Expected one that was written to its end, by "
            "`synth2 fit`. Copy it again, or take an earlier one."
        ) from error


def _save(checkpoint: dict[str, Any], suffix: str, file: Path) -> None:
    try:
        torch.save(checkpoint, file) if suffix == ".ckpt" else save_weights(checkpoint["state_dict"], file)
    except (RuntimeError, SafetensorError) as error:  # their words for a full disk
        raise OSError(str(error).partition("\n")[0]) from error


class _SafeReader(FileSystemReader):
    """Reads the index, which is a pickle, without running what it names; torch reads the tensors safely itself."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        del args, kwargs
        index = read_index(Path(self.path) / _INDEX)
        index.storage_meta = StorageMeta(load_id=self.load_id)
        return index


class _SafePlanner(DefaultLoadPlanner):
    """Reads values that are no tensors, such as learning rates, without running what they name."""

    def load_bytes(self, read_item: ReadItem, value: BytesIO) -> None:
        self.original_state_dict[read_item.dest_index.fqn] = torch.load(value, weights_only=True)


def _nest(flat: dict[tuple[str | int, ...], Any]) -> Any:
    """Turn values by path into dictionaries, and into lists where a step of the path is a number."""
    if () in flat:
        return flat[()]
    inner: dict[str | int, dict[tuple[str | int, ...], Any]] = defaultdict(dict)
    for (first, *others), value in flat.items():
        inner[first][tuple(others)] = value
    if all(isinstance(step, int) for step in inner):
        return [_nest(inner[step]) for step in sorted(inner)]
    return {step: _nest(content) for step, content in inner.items()}
