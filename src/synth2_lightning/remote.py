"""What lies behind an address, such as ``s3://BUCKET/PATH``: fetched through fsspec into a cache, once per version."""

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
import fsspec.config
from filelock import FileLock
from fsspec.asyn import AsyncFileSystem
from rich.text import Text

from synth2_lightning.console import MessageConsole
from synth2_lightning.remote_cache import hold, make_room
from synth2_lightning.weights import cache_folder

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://\S+")
_MD5 = re.compile(r"[0-9a-f]{32}")
_VERSIONS = (
    *("ETag", "etag", "md5Hash", "Content-MD5", "Digest", "blob_id", "sha"),
    *("LastModified", "Last-Modified", "last_modified", "mtime", "modify", "created"),
)
"""By what the file systems of fsspec tell one content of a file from the next; the first one that there is counts."""
_HTTP = ("http", "https")
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "PermissionError", "ProfileNotFound")
_NUM_THREADS = 8
_SECONDS_TO_LIST = 300.0
_SECONDS_TO_BEGIN = 60.0
_SLOWEST = 20_000
"""Bytes per second of a file that is fetched, on average, after its beginning."""
_MOST_OF_A_PAGE = 32 * 2**20
_MOST_UNKNOWN = 4 * 2**30
_LONGEST_UNKNOWN = 3600.0
"""Bytes and seconds of a file whose size the server does not give."""
_ROOM = (
    "Expected a cache folder on a local disk that can be written to, with room left: make some (`synth2 cache "
    "--clear` deletes what no process uses), or set SYNTH2_CACHE to another folder. Start again: what has arrived "
    "whole is kept."
)


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    size: int | None
    version: str
    modified: float | None = field(compare=False)

    @property
    def md5(self) -> str | None:
        """What S3 gives as the ETag of what was uploaded in one go, and was not encrypted with a key of its own."""
        return self.version if _MD5.fullmatch(self.version) else None


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
    deleted where the limit of the cache (:func:`~synth2_lightning.remote_cache.read_limit`) leaves no room, but never
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
    _refuse_secrets(address)
    with _explained(address, what):
        system, path = _open(address)
        files = _list_files(system, path)
    if odd := [inner for inner in files if ".." in PurePosixPath(inner).parts]:
        raise OSError(f"The name {odd[0]!r} below {address} leads out of its folder; nothing was fetched. Rename it.")
    name = PurePosixPath(path).name or "root"
    version = [(inner, file.size, file.version) for inner, file in sorted(files.items())]
    digest = hashlib.sha256(repr((address, version)).encode()).hexdigest()[:20]
    folder = remote_folder() / digest
    with _stored(address, folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        hold(folder, address)
    if not folder.is_dir():
        told = f"{address} ({len(files)} files, {_megabytes(files.values())})"
        console, lock = MessageConsole(stderr=True), FileLock(f"{folder}.lock")
        with console.status(Text(f"Fetching {told}")):
            with _stored(address, folder):
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
    _refuse_secrets(pattern)
    with _explained(pattern, what):
        system, path = _open(pattern)
        deadline = _deadline(system, _SECONDS_TO_LIST)
        found = [str(system.unstrip_protocol(name)) for name in system.glob(path, **deadline)]
        if not found:
            raise FileNotFoundError("nothing matches the pattern")
    return sorted(found)


def _open(address: str) -> tuple[Any, str]:
    protocol = address.partition("://")[0]
    chosen = fsspec.config.conf.get(protocol, {})  # by the user, which counts
    options = {name: value for name, value in _options(protocol).items() if name not in chosen}
    system, path = fsspec.core.url_to_fs(address, **options)
    system.invalidate_cache()  # a process that lives long would not see what changed
    return system, path


def _options(protocol: str) -> dict[str, Any]:
    if protocol == "s3":  # s3fs tries five times; five times five are minutes
        return {"config_kwargs": {"retries": {"max_attempts": 0}}}
    if protocol in _HTTP:
        import aiohttp

        # Five minutes are too few for a large file; _deadline holds for small ones, too.
        client = {
            "timeout": aiohttp.ClientTimeout(total=None),
            "response_class": _page_class(),
            "raise_for_status": _refuse_compressed,
        }
        return {"client_kwargs": client, "headers": {"Accept-Encoding": "identity"}}
    return {}


async def _refuse_compressed(response: Any) -> None:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise OSError(f"{response.url} is compressed by {encoding[:40]!r}, though it was asked for as it is")


def _deadline(system: Any, seconds: float) -> dict[str, Any]:
    """Arguments by which fsspec ends a whole operation, as asynchronous file systems can."""
    return {"timeout": seconds} if isinstance(system, AsyncFileSystem) else {}


@cache
def _page_class() -> Any:
    import aiohttp

    class Page(aiohttp.ClientResponse):
        """A response whose text, the page that a pattern is compared with, has a largest size."""

        async def text(self, encoding: str | None = None, errors: str = "strict") -> str:
            body = bytearray()
            async for chunk in self.content.iter_chunked(2**16):
                body += chunk
                if len(body) > _MOST_OF_A_PAGE:
                    raise OSError(f"the page has more than {_MOST_OF_A_PAGE} bytes; name the files instead")
            return body.decode(encoding or "utf-8", errors)

    return Page


def _list_files(system: Any, path: str) -> dict[str, _File]:
    """All files by their paths below the folder; of a file, itself under the empty path."""
    deadline = _deadline(system, _SECONDS_TO_LIST)
    info = system.info(path, **deadline)
    if info["type"] == "file":
        return {"": _to_file(info)}
    files = {}
    for found in system.find(path, detail=True, **deadline).values():
        inner = PurePosixPath("/", found["name"]).relative_to(PurePosixPath("/", path))
        if found["type"] == "file" and not found["name"].endswith("/"):  # browsers of buckets make such for folders
            files[inner.as_posix()] = _to_file(found)
    if not files:
        raise FileNotFoundError("there is a folder, and no file in it")
    return files


def _to_file(info: Mapping[str, Any]) -> _File:
    version = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
    if "ino" in info:  # of a disk here (file://), where a copy keeps its time, but not when it came
        version += f" {info['ino']} {info.get('created')}"
    modified = info.get("LastModified") or info.get("mtime")
    return _File(
        path=info["name"],
        size=info["size"],
        version=version.strip('"'),
        modified=modified.timestamp() if isinstance(modified, datetime) else modified,
    )


def _fill(folder: Path, name: str, system: Any, files: Mapping[str, _File], asked: tuple[str, str]) -> None:
    """Fetch what is not yet there beside the folder, and give it its name when all is."""
    draft = folder.with_suffix(".draft")
    targets = {draft / "whole" / name / inner: file for inner, file in files.items()}
    lacking = {target: file for target, file in targets.items() if not target.is_file()}
    with _stored(asked[0], folder):
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
    with _stored(asked[0], folder):
        (draft / "whole").rename(folder)
        shutil.rmtree(draft)


class _Limits(fsspec.Callback):  # type: ignore[misc]  # fsspec ships no types
    """Ends a fetch that brings more than was listed, or takes too long for it.

    Args:
        file: As it was listed.
    """

    def __init__(self, file: _File) -> None:
        super().__init__()
        self.most = _MOST_UNKNOWN if file.size is None else file.size
        self.seconds = _LONGEST_UNKNOWN if file.size is None else _SECONDS_TO_BEGIN + file.size / _SLOWEST
        self._path = file.path
        self._start = time.monotonic()

    def relative_update(self, inc: int = 1) -> None:
        """Take note of bytes that have come."""
        super().relative_update(inc)
        if self.value > self.most:
            raise OSError(f"{self._path} brings more than the {self.most} bytes that were expected; it was not kept")
        if time.monotonic() - self._start > self.seconds:
            raise OSError(f"{self._path} was not whole after {self.seconds:.0f} seconds; {self.value} bytes had come")


def _fetch(system: Any, file: _File, half: Path, target: Path, asked: tuple[str, str]) -> None:
    """Fetch a file under another name, compare it with what the listing says, and give it its own name."""
    found: list[str] = []
    for _ in range(2):
        limits = _Limits(file)
        try:
            with _explained(*asked):
                system.get_file(file.path, str(half), callback=limits, **_deadline(system, limits.seconds))
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


def _megabytes(files: Iterable[_File]) -> str:
    return f"{sum(file.size or 0 for file in files) / 1e6:.1f} MB"


def _refuse_secrets(address: str) -> None:
    parts = urlsplit(address)
    if parts.password or (parts.scheme in ("http", "https") and parts.query):
        raise ValueError(
            f"The address {parts.scheme}://…{parts.path} holds a password, a key or a query, which would end in logs "
            "and manifests; expected one without. Credentials belong into the environment, or into the files of the "
            "protocol's package (AWS_PROFILE, ~/.aws/credentials)."
        )


@contextmanager
def _explained(address: str, what: str) -> Iterator[None]:
    """Say what a file system's error means for whoever wrote the address."""
    try:
        yield
    except Exception as error:  # every file system has errors of its own
        raise _explain(error, address, what) from error


def _explain(error: Exception, address: str, what: str) -> Exception:
    cause = error.__cause__
    if (
        isinstance(error, FileNotFoundError)
        and isinstance(cause, Exception)
        and _is_of_http(cause)
        and getattr(cause, "status", 0) != 404
    ):
        error = cause  # fsspec calls every failure to list a file of http so
    protocol, name = address.partition("://")[0], type(error).__name__
    start = f"The {what} at {address!r} cannot be fetched: {name}: {error}."
    match error:
        case ImportError():
            way = "pip install 'synth2-lightning[s3]'" if protocol == "s3" else "install the package that it names"
            return OSError(f"{start} The protocol {protocol}:// needs a package that is not here: {way}.")
        case FileNotFoundError():
            return FileNotFoundError(
                f"The {what} is not at {address!r}: {error}. Expected a file or a folder there: look at the bucket's "
                f"name, the path, and the server ({_server(protocol)})."
            )
        case TimeoutError():
            return OSError(
                f"{start} The answer was not whole in time: a listing has {_SECONDS_TO_LIST:.0f} seconds, a file "
                f"{_SECONDS_TO_BEGIN:.0f} and one more per {_SLOWEST} bytes. See whether the server works, or copy "
                "the files by other means."
            )
        case ValueError() if "rotocol" in str(error):
            return ValueError(
                f"{start} Expected a path, package://PACKAGE/PATH, weights://NAME/PATH, or an address of a protocol "
                "that fsspec knows, such as s3://BUCKET/PATH."
            )
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OSError(f"{start} {_ROOM}")
    if name in _NO_CREDENTIALS:
        return OSError(
            f"{start} Expected credentials that may list and read it, in the environment (for s3: AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), in the protocol's own files, or a role of the machine; "
            f"""what is public needs FSSPEC_{protocol.upper()}='{{"anon": true}}'."""
        )
    return OSError(
        f"{start} Expected a server that answers ({_server(protocol)}): look whether it runs and can be reached from "
        "here. Start again: what has arrived whole is kept."
    )


def _server(protocol: str) -> str:
    names = [f"FSSPEC_{protocol.upper()}_ENDPOINT_URL", *(["AWS_ENDPOINT_URL"] if protocol == "s3" else [])]
    found = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
    return found[0] if found else f"the default one; {' or '.join(names)} names another"


@contextmanager
def _stored(address: str, folder: Path) -> Iterator[None]:
    """Say what an error of this machine's disk means."""
    try:
        yield
    except (OSError, NotImplementedError) as error:  # the latter where a file system knows no locks
        raise OSError(f"{address} cannot be stored at {folder}: {error}. {_ROOM}") from error


def _is_of_http(error: Exception) -> bool:
    """Whether fsspec took an error of a web server or of the way to it for a missing file."""
    return type(error).__module__.startswith("aiohttp")
