"""What lies behind an address, such as ``s3://BUCKET/PATH``: fetched through fsspec into a cache, once per version."""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import fsspec.config
from filelock import FileLock
from rich.text import Text

from synth2_lightning.io.console import MessageConsole
from synth2_lightning.io.registry_weights import cache_folder
from synth2_lightning.io.remote_cache import hold, make_room
from synth2_lightning.io.remote_errors import explained, refuse_secrets, stored
from synth2_lightning.io.remote_filesystems import (
    SECONDS_TO_BEGIN,
    SECONDS_TO_LIST,
    SLOWEST,
    RemoteFile,
    list_files,
    open_filesystem,
    time_limit,
)

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://\S+")
_NUM_THREADS = 8
_MOST_UNKNOWN = 4 * 2**30
_LONGEST_UNKNOWN = 3600.0
"""Bytes and seconds of a file whose size the server does not give."""


def is_remote(location: str) -> bool:
    """Whether a text has the form of an address.

    Example:
        >>> is_remote("s3://bucket/shards"), is_remote("data/shards"), is_remote("A page: http://a.b")
        (True, False, False)
    """
    return _ADDRESS.fullmatch(location) is not None


def remote_folder() -> Path:
    """Folder of all that was fetched from addresses: ``remote/`` of the cache."""
    return cache_folder() / "remote"


def fetch_remote(address: str, what: str) -> Path:
    """Bring a file, or a folder with all that is below, into the cache, unless it is there in the version of now.

    What was fetched lies in a folder that is named after the address and the version (names and sizes of all files, and
    of each its ETag, hash or time, if the server gives one), and that appears whole or not at all. A fetch that was
    killed goes on with the files that it lacks; what changed at the address is fetched again beside the old one, which
    a run may still be reading. Processes of one machine wait for the one that fetches. What was not used for longest is
    deleted where the limit of the cache (:func:`~synth2_lightning.io.remote_cache.read_limit`) is reached, but never
    what a running process uses.

    Args:
        address: ``PROTOCOL://…`` for any protocol of fsspec, set up as fsspec and the protocol's package are:
            ``FSSPEC_S3_ENDPOINT_URL`` or ``AWS_ENDPOINT_URL``, ``AWS_PROFILE``, a role of the machine, and so on.
        what: What is looked for, for messages.

    Returns:
        The copy in ``remote/`` of the cache (``$SYNTH2_CACHE``, or ``~/.cache/synth2-lightning``), under its own name.

    Raises:
        FileNotFoundError: If nothing lies there.
        ValueError: If there is no such protocol, or the address holds a secret.
        OSError: If it cannot be reached, read or stored, or arrives damaged.

    Example:
        >>> with fsspec.open("memory://bucket/words.txt", "w") as file:
        ...     _ = file.write("a fox")
        >>> fetch_remote("memory://bucket/words.txt", "words").read_text()
        'a fox'
    """
    refuse_secrets(address)
    with explained(address, what):
        system, path = open_filesystem(address)
        files = list_files(system, path)
    if odd := [inner for inner in files if ".." in PurePosixPath(inner).parts]:
        raise OSError(f"The name {odd[0]!r} below {address} leads out of its folder; nothing was fetched. Rename it.")
    name = PurePosixPath(path).name or "root"
    version = [(inner, file.size, file.version) for inner, file in sorted(files.items())]
    digest = hashlib.sha256(repr((address, version)).encode()).hexdigest()[:20]
    folder = remote_folder() / digest
    with stored(address, folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        hold(folder, address)
    if not folder.is_dir():
        told = f"{address} ({len(files)} files, {_megabytes(files.values())})"
        console, lock = MessageConsole(stderr=True), FileLock(f"{folder}.lock")
        with console.status(Text(f"Fetching {told}")):
            with stored(address, folder):
                lock.acquire()
            try:
                if not folder.is_dir():  # no other process was quicker
                    for entry in make_room(folder.parent, sum(file.size or 0 for file in files.values())):
                        console.print(f"Deleted from the cache, for room: {entry.address}", soft_wrap=True)
                    _fill(folder, name, system, files, (address, what))
                    console.print(f"{told} is at {folder / name}", soft_wrap=True)
            finally:
                lock.release()
    return folder / name


def match_remote(pattern: str, what: str) -> list[str]:
    """Give the addresses that match a pattern with ``*``, ``?`` and ``[...]``, sorted.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: As of :func:`fetch_remote`.
        OSError: If the address cannot be reached.

    Example:
        >>> for number in range(2):
        ...     fsspec.filesystem("memory").pipe(f"/tars/{number}.tar", b"")
        >>> match_remote("memory://tars/*.tar", "tars")
        ['memory:///tars/0.tar', 'memory:///tars/1.tar']
    """
    refuse_secrets(pattern)
    with explained(pattern, what):
        system, path = open_filesystem(pattern)
        limit = time_limit(system, SECONDS_TO_LIST)
        found = [str(system.unstrip_protocol(name)) for name in system.glob(path, **limit)]
        if not found:
            raise FileNotFoundError("nothing matches the pattern")
    return sorted(found)


def _fill(folder: Path, name: str, system: Any, files: Mapping[str, RemoteFile], asked: tuple[str, str]) -> None:
    """Fetch what is not yet there beside the folder, and give it its name when all is."""
    draft = folder.with_suffix(".draft")
    targets = {draft / "whole" / name / inner: file for inner, file in files.items()}
    lacking = {target: file for target, file in targets.items() if not target.is_file()}
    with stored(asked[0], folder):
        free = shutil.disk_usage(folder.parent).free
        if sum(file.size or 0 for file in lacking.values()) > free:
            raise OSError(f"{_megabytes(lacking.values())} are to be fetched, and {free / 1e6:.1f} MB are free")
        for target in lacking:
            target.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        jobs = [
            pool.submit(_fetch, system, file, draft / f"{number}.half", target, asked)
            for number, (target, file) in enumerate(lacking.items())
        ]
        try:
            for job in jobs:
                job.result()
        finally:
            pool.shutdown(cancel_futures=True)
    with stored(asked[0], folder):
        (draft / "whole").rename(folder)
        shutil.rmtree(draft)


class _Limits(fsspec.Callback):  # type: ignore[misc]  # fsspec ships no types
    """Ends a fetch that brings more than was listed, or takes too long for it.

    Args:
        file: As it was listed.
    """

    def __init__(self, file: RemoteFile) -> None:
        super().__init__()
        self.most = _MOST_UNKNOWN if file.size is None else file.size
        self.seconds = _LONGEST_UNKNOWN if file.size is None else SECONDS_TO_BEGIN + file.size / SLOWEST
        self._path = file.path
        self._start = time.monotonic()

    def relative_update(self, inc: int = 1) -> None:
        """Take note of bytes that have come."""
        super().relative_update(inc)
        if self.value > self.most:
            raise OSError(f"{self._path} brings more than the {self.most} bytes that were expected; it was not kept")
        if time.monotonic() - self._start > self.seconds:
            raise OSError(f"{self._path} was not whole after {self.seconds:.0f} seconds; {self.value} bytes had come")


def _fetch(system: Any, file: RemoteFile, half: Path, target: Path, asked: tuple[str, str]) -> None:
    """Fetch a file under another name, compare it with what the listing says, and give it its own name."""
    found: list[str] = []
    for _ in range(2):
        limits = _Limits(file)
        try:
            with explained(*asked):
                system.get_file(file.path, str(half), callback=limits, **time_limit(system, limits.seconds))
        except OSError:
            half.unlink(missing_ok=True)  # it may fill the disk
            raise
        size = half.stat().st_size
        if size != (size if file.size is None else file.size):
            raise OSError(
                f"{file.path} arrived with {size} bytes, and had {file.size} when it was listed: it was changed "
                "meanwhile, or the connection broke. Start again: what has arrived whole is kept."
            )
        found.append(_digest(half))
        if file.md5 in (None, found[-1]):
            break
    # Twice the same: the ETag is no checksum after all (KMS encrypts so). Twice different: the way here does damage.
    if file.md5 not in (None, found[-1]) and found[0] != found[-1]:
        raise OSError(
            f"{file.path} arrived damaged, twice: its MD5 is {file.md5}, and that of what came {' and '.join(found)}. "
            "Look at the network and the disk of this machine, and start again."
        )
    if file.modified is not None:
        os.utime(half, (file.modified, file.modified))  # the newest of several checkpoints is told by it
    half.rename(target)


def _digest(path: Path) -> str:
    with path.open("r+b") as file:
        os.fsync(file)  # else a power cut may leave a whole name with half the content
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _megabytes(files: Iterable[RemoteFile]) -> str:
    return f"{sum(file.size or 0 for file in files) / 1e6:.1f} MB"
