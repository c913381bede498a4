"""Cache of fetched URLs: size limit, entries in use, and eviction of the least recently used ones."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

DEFAULT_GIGABYTES = 100.0
_pinned: dict[Path, int] = {}
"""File descriptors by entry; their shared locks mark the entry as in use until this process ends."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One cached version of a URL.

    Args:
        folder: Folder of the copy.
        address: The URL; empty if unknown.
        num_bytes: Total size of its files.
        last_used: Seconds since 1970.
    """

    folder: Path
    address: str
    num_bytes: int
    last_used: float


def read_limit() -> int:
    """Return the size limit of the cache in bytes: ``$SYNTH2_CACHE_GB`` gigabytes, or 100.

    Raises:
        ValueError: If the variable is not a number above zero.
    """
    value = os.environ.get("SYNTH2_CACHE_GB") or str(DEFAULT_GIGABYTES)
    try:
        gigabytes = float(value)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < float("inf"):
        raise ValueError(
            f"SYNTH2_CACHE_GB is {value!r}; expected the maximum size of the cache in gigabytes, a number above 0 "
            f"such as {DEFAULT_GIGABYTES:g}."
        )
    return int(gigabytes * 1e9)


def pin(folder: Path, address: str) -> None:
    """Prevent the deletion of an entry, existing or not, until this process and its children end."""
    if folder not in _pinned:
        descriptor = os.open(_marker(folder), os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.pwrite(descriptor, address.encode(), 0)
        _pinned[folder] = descriptor
    os.utime(_marker(folder))


def list_entries(cache: Path) -> list[Entry]:
    """Return all entries of the cache, least recently used first."""
    folders = [path for path in cache.glob("*") if path.is_dir() and not path.suffix]
    return sorted(map(_describe, folders), key=lambda entry: (entry.last_used, entry.folder))


def evict(cache: Path, num_bytes: int) -> list[Entry]:
    """Delete the least recently used entries until new bytes fit below the limit; entries in use are kept.

    Returns:
        The deleted entries.
    """
    _delete_remains(cache)
    limit = read_limit()
    entries = list_entries(cache)
    total = sum(entry.num_bytes for entry in entries) + num_bytes
    deleted = []
    for entry in entries:
        if total > limit and _delete(entry.folder):
            total -= entry.num_bytes
            deleted.append(entry)
    return deleted


def clear(cache: Path) -> tuple[list[Entry], list[Entry]]:
    """Delete all entries that are not in use, and the remains of killed fetches and deletions.

    Returns:
        The deleted entries, and those in use.
    """
    entries = list_entries(cache)
    deleted = [entry for entry in entries if _delete(entry.folder)]
    _delete_remains(cache)
    return deleted, [entry for entry in entries if entry not in deleted]


def _delete_remains(cache: Path) -> None:
    for left in [*cache.glob("*.draft"), *cache.glob("*.gone")]:
        with _unused(left.with_suffix("")) as is_unused:
            if is_unused:
                shutil.rmtree(left, ignore_errors=True)


def _delete(folder: Path) -> bool:
    """Delete an entry atomically if no process uses it; return whether it was deleted."""
    with _unused(folder) as is_unused:
        if not is_unused:
            return False
        gone = folder.with_suffix(".gone")
        shutil.rmtree(gone, ignore_errors=True)
        try:
            folder.rename(gone)
        except OSError:  # owned by another user, or already deleted
            return False
        shutil.rmtree(gone, ignore_errors=True)
        return True


@contextmanager
def _unused(folder: Path) -> Iterator[bool]:
    """Yield whether no process uses an entry; none can start to use it inside the context."""
    with _marker(folder).open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the file is closed
        except BlockingIOError:
            yield False
        else:
            yield True


def _describe(folder: Path) -> Entry:
    address, last_used = "", folder.stat().st_mtime
    with suppress(OSError):
        address, last_used = _marker(folder).read_text("utf-8"), _marker(folder).stat().st_mtime
    num_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Entry(folder, address, num_bytes, last_used)


def _marker(folder: Path) -> Path:
    return folder.with_suffix(".used")
