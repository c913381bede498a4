"""Indexes of data sets in the cache: Arrow files that one process writes and all memory-map."""

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from synth2_lightning.io.atomic import write_atomically
from synth2_lightning.io.locks import lock_file
from synth2_lightning.io.registry_weights import cache_folder

_FORMAT = 2  # part of the file names: indexes of another format are not read
_NOTES = b"notes"
SECONDS_TO_WAIT = 3600.0
"""Maximum time that a process waits for another one that makes an index."""
_logger = logging.getLogger(__name__)


class Index(NamedTuple):
    """An index.

    Attributes:
        rows: Its columns.
        notes: JSON values, such as counts of skipped items.
    """

    rows: pa.RecordBatch
    notes: Any


def open_index(name: str, version: str, make: Callable[[], Index], seconds: float = SECONDS_TO_WAIT) -> Index:
    """Return an index, memory-mapped from the cache; if it is missing or damaged, make and keep it.

    Of several processes that need it, one makes it and the others wait. Without a writable cache it is kept in memory.

    Args:
        name: Identifies the data, such as the path of a file and the settings that it is read with.
        version: Identifies its content, such as size and time of the file; an index of another version is deleted.
        make: Returns the index.
        seconds: Maximum time to wait for another process.

    Raises:
        BlockingIOError: If another process still makes it after that time.

    Example:
        >>> def make():
        ...     print("reading")
        ...     return Index(pa.record_batch({"key": ["a", "b"]}), {"empty": 0})
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as os.environ["SYNTH2_CACHE"]:
        ...     for _ in range(2):
        ...         rows, notes = open_index("captions.csv", "1", make)
        ...     del os.environ["SYNTH2_CACHE"]
        reading
        >>> rows["key"].to_pylist(), notes
        (['a', 'b'], {'empty': 0})
    """
    digest = _digest(name)
    folder = index_folder() / digest[:2]
    file = folder / f"{digest}-{_digest(version)}-{_FORMAT}.arrow"
    with ExitStack() as locks:
        if not file.exists():
            try:
                locks.enter_context(lock_file(folder / digest, seconds))
            except BlockingIOError:
                raise
            except OSError as error:
                return _make_without_cache(name, make, error)
        if not file.exists():
            index = make()
            try:
                write_atomically(file, lambda draft: _write(index, draft))
            except OSError as error:
                return _make_without_cache(name, lambda: index, error)
            for outdated in set(folder.glob(f"{digest}-*.arrow")) - {file}:
                outdated.unlink(missing_ok=True)
    try:
        with pa.memory_map(str(file)) as mapped:  # the rows keep the mapping, without a file descriptor
            rows = pa.ipc.open_file(mapped).get_batch(0)
        return Index(rows, json.loads(rows.schema.metadata[_NOTES]))
    except (OSError, ValueError, LookupError) as error:  # ValueError: of Arrow and JSON
        _logger.warning("%s, the index of %s, is damaged and deleted; it is made again: %s", file, name, error)
        file.unlink(missing_ok=True)
        return make()


def describe_files(*files: Path) -> str:
    """Return paths, sizes and modification times of files as the version of an index."""
    return repr([(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files])


def index_folder() -> Path:
    """Return the folder of all indexes."""
    return cache_folder() / "indexes"


def list_indexes() -> list[int]:
    """Return the sizes in bytes of all indexes."""
    return [file.stat().st_size for file in index_folder().glob("*/*.arrow")]


def clear_indexes() -> list[int]:
    """Delete all indexes and return their sizes; processes that have mapped one keep its content."""
    sizes = []
    for file in index_folder().glob("*/*.arrow"):
        with suppress(OSError):  # owned by another user
            size = file.stat().st_size
            file.unlink()
            sizes.append(size)
    return sizes


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:24]


def _write(index: Index, file: Path) -> None:
    rows = index.rows.replace_schema_metadata({_NOTES: json.dumps(index.notes)})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_batch(rows)


def _make_without_cache(name: str, make: Callable[[], Index], error: OSError) -> Index:
    _logger.warning("The index of %s is not kept, so that the next run makes it again: %s", name, error)
    return make()
