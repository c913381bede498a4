"""The folder of what was fetched from addresses: how large it is, what is in use, and what goes first."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

DEFAULT_GIGABYTES = 100.0
_held: dict[Path, int] = {}
"""By entry, the descriptor by whose lock this process says that it uses the entry, until it ends."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of what lies behind an address.

    Args:
        folder: Where the copy is.
        address: Where it came from; empty if unknown.
        num_bytes: Of all its files.
        last_used: When a process asked for it last, in seconds since 1970.

    Example:
        >>> Entry(Path("remote/0f3a"), "s3://bucket/captions.csv", 512, 0.0).num_bytes
        512
    """

    folder: Path
    address: str
    num_bytes: int
    last_used: float


def read_limit() -> int:
    """Bytes that the cache may hold: ``$SYNTH2_CACHE_GB`` gigabytes, or 100.

    Raises:
        ValueError: If the variable holds no number above zero.

    Example:
        >>> read_limit()
        100000000000
    """
    written = os.environ.get("SYNTH2_CACHE_GB") or str(DEFAULT_GIGABYTES)
    try:
        gigabytes = float(written)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < float("inf"):
        raise ValueError(
            f"SYNTH2_CACHE_GB is {written!r}; expected the gigabytes that fetched data may take, a number above 0, "
            f"such as {DEFAULT_GIGABYTES:g}."
        )
    return int(gigabytes * 1e9)


def hold(folder: Path, address: str) -> None:
    """Keep an entry, there or yet to be fetched, from being deleted for as long as this process and its children live.

    Args:
        folder: Of the entry.
        address: Where it comes from.

    Raises:
        OSError: If the folder above cannot be written to.
    """
    if folder not in _held:
        descriptor = os.open(_marker(folder), os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.pwrite(descriptor, address.encode(), 0)
        _held[folder] = descriptor
    os.utime(_marker(folder))


def list_entries(cache: Path) -> list[Entry]:
    """List what the cache holds, what was not used for longest first.

    Example:
        >>> list_entries(Path("nowhere"))
        []
    """
    folders = [path for path in cache.glob("*") if path.is_dir() and not path.suffix]
    return sorted(map(_describe, folders), key=lambda entry: (entry.last_used, entry.folder))


def make_room(cache: Path, num_bytes: int) -> list[Entry]:
    """Delete entries, those first that were not used for longest, until the limit leaves room; none that is in use.

    Args:
        cache: The folder of all entries.
        num_bytes: To be fetched.

    Returns:
        What was deleted.

    Raises:
        ValueError: If the limit is no number.
    """
    limit = read_limit()
    entries = list_entries(cache)
    total = sum(entry.num_bytes for entry in entries) + num_bytes
    deleted = []
    for entry in entries:
        if total <= limit:
            break
        if _delete(entry.folder):
            total -= entry.num_bytes
            deleted.append(entry)
    return deleted


def clear(cache: Path) -> tuple[list[Entry], list[Entry]]:
    """Delete all entries but those in use, and what fetches and deletions that were killed have left.

    Returns:
        What was deleted, and what is in use.
    """
    entries = list_entries(cache)
    deleted = [entry for entry in entries if _delete(entry.folder)]
    for left in [*cache.glob("*.draft"), *cache.glob("*.gone")]:
        with _unused(left.with_suffix("")) as is_unused:
            if is_unused:
                shutil.rmtree(left, ignore_errors=True)
    return deleted, [entry for entry in entries if entry not in deleted]


def _delete(folder: Path) -> bool:
    """Delete an entry if no process uses it; a kill meanwhile leaves all of it, or nothing that is taken for it."""
    with _unused(folder) as is_unused:
        if not is_unused:
            return False
        gone = folder.with_suffix(".gone")
        shutil.rmtree(gone, ignore_errors=True)
        try:
            folder.rename(gone)
        except OSError:  # somebody else's, or deleted already
            return False
        shutil.rmtree(gone, ignore_errors=True)
        return True


@contextmanager
def _unused(folder: Path) -> Iterator[bool]:
    """Whether no process uses an entry; none begins to before the context ends."""
    with _marker(folder).open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back when the file is closed
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
