"""Safe reader of the index of a sharded checkpoint: the file and offset of each part of each tensor.

``torch.distributed.checkpoint`` writes the index as a pickle. Unpickling calls the classes and functions that a pickle
names. Here every name that torch writes is unpickled to an inert record, and torch's objects are built from the records
with checked types. torch's own unpickler of ``weights_only=True`` does not read the index, tried with torch 2.15: it
raises on an instruction of pickle protocol 4.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from synth2_lightning.compat.torch import StorageInfo

_PATHS = {"PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"}
_RECORDS = {  # names that torch 2.15 writes to an index
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,  # their module in Python 3.13
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
    },
}
_PLAIN_TYPES: dict[tuple[str, str], type] = {  # immutable: no attribute of theirs can be set
    ("torch", "Size"): tuple,
    ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"): int,
    ("torch.serialization", "_get_layout"): str,
}


def read_index(path: Path) -> Metadata:
    """Read an index, ``.metadata``, without running code.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not an index, or names anything that torch does not write.
    """
    try:
        with path.open("rb") as file:
            index = _Unpickler(file).load()
        return _make_index(_fields(index, "Metadata"))
    except (TypeError, AttributeError, LookupError) as error:
        raise ValueError(f"Its index is not as torch writes it ({type(error).__name__}: {error}).") from error


class _Record:
    """State of an object in the pickle."""

    state: object = None

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        value = getattr(torch, name, None) if module == "torch" else None
        if isinstance(value, torch.dtype | torch.layout):
            return value
        if (module, name) in _PLAIN_TYPES:
            return _PLAIN_TYPES[module, name]
        if name in _RECORDS.get(module, ()):
            return type(name, (_Record,), {})  # a new class each time, so that attributes set on it have no effect
        raise ValueError(f"Its index names {module}.{name}, which may be code; nothing was run.")


def _fields(record: object, kind: str) -> Mapping[str, Any]:
    if not isinstance(record, _Record) or type(record).__name__ != kind or not isinstance(record.state, dict):
        raise ValueError(f"Its index holds {type(record).__name__} where torch writes {kind}.")
    return record.state


def _make_index(fields: Mapping[str, Any]) -> Metadata:
    storage = {_make_key(key): _make_storage(value) for key, value in (fields.get("storage_data") or {}).items()}
    return Metadata(
        state_dict_metadata={str(name): _make_entry(each) for name, each in fields["state_dict_metadata"].items()},
        planner_data=fields.get("planner_data"),
        storage_data=storage,
    )


def _make_entry(record: object) -> TensorStorageMetadata | BytesStorageMetadata:
    if type(record).__name__ == "BytesStorageMetadata":
        return BytesStorageMetadata()
    fields = _fields(record, "TensorStorageMetadata")
    properties = fields["properties"]
    if not isinstance(properties, _Record) or not isinstance(properties.state, tuple):
        raise ValueError(f"Its index holds {properties!r:.100} where torch writes the properties of a tensor.")
    dtype = properties.state[0]
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"Its index holds {dtype!r:.100} where torch writes a dtype.")
    chunks = [_fields(chunk, "ChunkStorageMetadata") for chunk in fields["chunks"]]
    return TensorStorageMetadata(
        properties=TensorProperties(dtype=dtype),
        size=torch.Size(fields["size"]),
        chunks=[ChunkStorageMetadata(torch.Size(chunk["offsets"]), torch.Size(chunk["sizes"])) for chunk in chunks],
    )


def _make_key(record: object) -> MetadataIndex:
    fields = _fields(record, "MetadataIndex")
    offset, position = fields.get("offset"), fields.get("index")
    return MetadataIndex(
        str(fields["fqn"]), None if offset is None else torch.Size(offset), None if position is None else int(position)
    )


def _make_storage(record: object) -> StorageInfo:
    fields = _fields(record, "_StorageInfo")
    name = str(fields["relative_path"])
    if Path(name).name != name:
        raise ValueError(f"Its index names {name!r}, which is outside of the folder; nothing was read.")
    if fields.get("transform_descriptors"):
        raise ValueError(f"Its index has transforms of {name!r}; expected tensors as `synth2 fit` writes them.")
    return StorageInfo(name, int(fields["offset"]), int(fields["length"]))
