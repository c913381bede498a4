"""Fetching of URLs, such as ``s3://BUCKET/PATH``, through fsspec into a cache, once per version.

The caches of fsspec were tried with 2026.9.0, and not used: after a broken transfer, ``filecache::`` returned the first
half of the file, as ``simplecache::`` did after a kill; a changed remote file was written over the copy that an open
reader used; a server that listed 10 bytes wrote 300 MB; the files of a folder lost their paths; and the cache has no
limit. ``pooch`` needs the hash of each file in advance, and ``cached_path`` is another dependency without a limit.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import fsspec
import fsspec.config
from filelock import FileLock
from fsspec import AbstractFileSystem
from rich.text import Text

from synth2_lightning.io.console import MessageConsole
from synth2_lightning.io.registry_weights import cache_folder
from synth2_lightning.io.remote_cache import evict, pin
from synth2_lightning.io.remote_errors import check_no_secrets, fetch_errors, storage_errors
from synth2_lightning.io.remote_filesystems import (
    BASE_SECONDS,
    LIST_SECONDS,
    MIN_BYTES_PER_SECOND,
    RemoteFile,
    describe_file,
    list_files,
    open_filesystem,
    time_limit,
)

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://\S+")
_NUM_THREADS = 8
_MAX_BYTES_IF_UNKNOWN = 4 * 2**30
_MAX_SECONDS_IF_UNKNOWN = 3600.0
"""Limits for a file without a listed size."""


def is_remote(location: str) -> bool:
    """Return whether a location is a URL.

    Example:
        >>> is_remote("s3://bucket/shards"), is_remote("data/shards"), is_remote("A page: http://a.b")
        (True, False, False)
    """
    return _ADDRESS.fullmatch(location) is not None


def remote_folder() -> Path:
    """Return the folder of all files that were fetched from URLs."""
    return cache_folder() / "remote"


def fetch_remote(address: str, what: str) -> Path:
    """Fetch the current version of a file or folder into the cache, unless it is there.

    The cache entry is a folder named by a hash of the URL and its version: names and sizes of all files, with the ETag,
    hash or time of each if the server provides one. The entry is created atomically. An interrupted fetch resumes with
    the missing files. A changed version is a new entry, since a run may still read the old one. Processes of one
    machine wait for the one that fetches. At the limit of the cache
    (:func:`~synth2_lightning.io.remote_cache.read_limit`) the least recently used entries are deleted, except those in
    use.

    Args:
        address: ``PROTOCOL://…`` for any protocol of fsspec, configured as for fsspec and the protocol's package:
            ``FSSPEC_S3_ENDPOINT_URL`` or ``AWS_ENDPOINT_URL``, ``AWS_PROFILE``, a role of the machine, and so on.
        what: Name of the object, for messages.

    Returns:
        The copy in ``remote/`` of the cache (``$SYNTH2_CACHE``, or ``~/.cache/synth2-lightning``), with its own name.

    Raises:
        FileNotFoundError: If the URL does not exist.
        ValueError: If the protocol is unknown, or the URL contains a secret.
        OSError: If it cannot be reached, read or stored, or arrives damaged.

    Example:
        >>> with fsspec.open("memory://bucket/words.txt", "w") as file:
        ...     _ = file.write("a fox")
        >>> fetch_remote("memory://bucket/words.txt", "words").read_text()
        'a fox'
    """
    check_no_secrets(address)
    with fetch_errors(address, what):
        system, path = open_filesystem(address)
        files = list_files(system, path)
    if odd := [inner for inner in files if ".." in PurePosixPath(inner).parts]:
        raise OSError(
            f"The name {odd[0]!r} below {address} contains '..'; expected a path inside the folder. Nothing was "
            "fetched. Rename it."
        )
    name = PurePosixPath(path).name or "root"
    version = [(inner, file.size, file.version) for inner, file in sorted(files.items())]
    digest = hashlib.sha256(repr((address, version)).encode()).hexdigest()[:20]
    folder = remote_folder() / digest
    with storage_errors(address, folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        pin(folder, address)
    if not folder.is_dir():
        summary = f"{address} ({len(files)} files, {_megabytes(files.values())})"
        console, lock = MessageConsole(stderr=True), FileLock(f"{folder}.lock")
        with console.status(Text(f"Fetching {summary}")):
            with storage_errors(address, folder):
                lock.acquire()
            try:
                if not folder.is_dir():  # not fetched by another process meanwhile
                    for entry in evict(folder.parent, sum(file.size or 0 for file in files.values())):
                        console.print(f"Deleted from the cache to free space: {entry.address}", soft_wrap=True)
                    _fill(folder, name, system, files, (address, what))
                    console.print(f"{summary} is at {folder / name}", soft_wrap=True)
            finally:
                lock.release()
    return folder / name


def match_remote(pattern: str, what: str) -> dict[str, RemoteFile]:
    """Return the files that match a pattern with ``*``, ``?`` and ``[...]``, by their URLs in order.

    Raises:
        FileNotFoundError: If nothing matches.
        ValueError: If the protocol is unknown, or the pattern contains a secret.
        OSError: If the server cannot be reached.

    Example:
        >>> for number in range(2):
        ...     fsspec.filesystem("memory").pipe(f"/tars/{number}.tar", b"")
        >>> list(match_remote("memory://tars/*.tar", "tars"))
        ['memory:///tars/0.tar', 'memory:///tars/1.tar']
    """
    check_no_secrets(pattern)
    with fetch_errors(pattern, what):
        system, path = open_filesystem(pattern)
        limit = time_limit(system, LIST_SECONDS)
        found = {
            str(system.unstrip_protocol(name)): describe_file(
                info if info["size"] is not None else system.info(name, **limit)  # pages of http list no sizes
            )
            for name, info in system.glob(path, detail=True, **limit).items()
            if info["type"] == "file"
        }
        if not found:
            raise FileNotFoundError("nothing matches the pattern")
    return dict(sorted(found.items()))


def _fill(
    folder: Path, name: str, system: AbstractFileSystem, files: Mapping[str, RemoteFile], request: tuple[str, str]
) -> None:
    """Fetch the missing files into a draft folder, and rename it when all are there."""
    draft = folder.with_suffix(".draft")
    targets = {draft / "whole" / name / inner: file for inner, file in files.items()}
    missing = {target: file for target, file in targets.items() if not target.is_file()}
    with storage_errors(request[0], folder):
        free = shutil.disk_usage(folder.parent).free
        if sum(file.size or 0 for file in missing.values()) > free:
            raise OSError(f"{_megabytes(missing.values())} are needed, and {free / 1e6:.1f} MB are free")
        for target in missing:
            target.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        jobs = [
            pool.submit(_fetch, system, file, draft / f"{number}.half", target, request)
            for number, (target, file) in enumerate(missing.items())
        ]
        try:
            for job in jobs:
                job.result()
        finally:
            pool.shutdown(cancel_futures=True)
    with storage_errors(request[0], folder):
        (draft / "whole").rename(folder)
        shutil.rmtree(draft)


def _limit_fetch(file: RemoteFile, seconds: float) -> fsspec.Callback:
    """Return a callback that stops a fetch of more bytes than listed, or that is too slow."""
    max_bytes = _MAX_BYTES_IF_UNKNOWN if file.size is None else file.size
    start = time.monotonic()

    def check(_size: int | None, num_bytes: int, **_: object) -> None:
        if num_bytes > max_bytes:
            raise OSError(f"{file.path} has more than the expected {max_bytes} bytes; it was not kept")
        if time.monotonic() - start > seconds:
            raise OSError(f"{file.path} was incomplete after {seconds:.0f} seconds, with {num_bytes} bytes")

    return fsspec.Callback(hooks={"limits": check})


def _fetch(system: AbstractFileSystem, file: RemoteFile, draft: Path, target: Path, request: tuple[str, str]) -> None:
    """Fetch a file to a draft, compare it with the listing, and rename it."""
    digests: list[str] = []
    seconds = _MAX_SECONDS_IF_UNKNOWN if file.size is None else BASE_SECONDS + file.size / MIN_BYTES_PER_SECOND
    for _ in range(2):
        callback = _limit_fetch(file, seconds)
        try:
            with fetch_errors(*request):
                system.get_file(file.path, str(draft), callback=callback, **time_limit(system, seconds))
        except OSError:
            draft.unlink(missing_ok=True)  # it may fill the disk
            raise
        size = draft.stat().st_size
        if size != (size if file.size is None else file.size):
            raise OSError(
                f"{file.path} arrived with {size} bytes; expected {file.size}, as it was listed. It was changed "
                "meanwhile, or the connection broke. Start again: complete files are kept."
            )
        digests.append(_digest(draft))
        if file.md5 in (None, digests[-1]):
            break
    # Twice the same digest: the ETag is not an MD5 (as with KMS encryption). Two digests: the transfer damages files.
    if file.md5 not in (None, digests[-1]) and digests[0] != digests[-1]:
        raise OSError(
            f"{file.path} arrived damaged twice, with the MD5 {' and '.join(digests)}; expected {file.md5}. "
            "Check the network and the disk of this machine, and start again."
        )
    if file.modified is not None:
        os.utime(draft, (file.modified, file.modified))  # it orders checkpoints by age
    draft.rename(target)


def _digest(path: Path) -> str:
    with path.open("r+b") as file:
        os.fsync(file)  # otherwise a power failure may leave an incomplete file under the final name
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _megabytes(files: Iterable[RemoteFile]) -> str:
    return f"{sum(file.size or 0 for file in files) / 1e6:.1f} MB"
