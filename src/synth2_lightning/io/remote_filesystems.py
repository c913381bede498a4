"""Remote file systems of fsspec: opened with time limits, and listed with sizes and versions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import fsspec
import fsspec.config
from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem

_MD5 = re.compile(r"[0-9a-f]{32}")
_VERSIONS = (
    *("ETag", "etag", "md5Hash", "Content-MD5", "Digest", "blob_id", "sha"),
    *("LastModified", "Last-Modified", "last_modified", "mtime", "modify", "created"),
)
"""Fields of fsspec listings that identify a version of a file; the first present one is used."""
BASE_SECONDS = 60.0
MIN_BYTES_PER_SECOND = 20_000
"""Required average speed of a fetch, after the base time."""
LIST_SECONDS = 300.0
_MAX_PAGE_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A listed file.

    Args:
        path: Path on the file system.
        size: In bytes; ``None`` if not listed.
        version: Identifies the content of the path; empty if not listed.
        modified: Seconds since 1970.
    """

    path: str
    size: int | None
    version: str
    modified: float | None = field(compare=False)

    @property
    def md5(self) -> str | None:
        """MD5 in the ETag, which S3 sets for single-part uploads without KMS encryption."""
        return self.version if _MD5.fullmatch(self.version) else None


def open_filesystem(address: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URL, without cached listings, and the path on it."""
    protocol = address.partition("://")[0]
    user_options = fsspec.config.conf.get(protocol, {})  # takes precedence
    options = {name: value for name, value in _options(protocol).items() if name not in user_options}
    system, path = fsspec.core.url_to_fs(address, **options)
    system.invalidate_cache()  # otherwise a long-lived process would miss changes
    return system, path


def _options(protocol: str) -> dict[str, Any]:
    if protocol == "s3":  # s3fs retries five times itself; 25 attempts would take minutes
        return {"config_kwargs": {"retries": {"max_attempts": 0}}}
    if protocol in ("http", "https"):
        import aiohttp

        # aiohttp's default of five minutes is too short for large files; time_limit() limits every file.
        client = {
            "timeout": aiohttp.ClientTimeout(total=None),
            "response_class": _page_class(),
            "raise_for_status": _check_response,
        }
        return {"client_kwargs": client, "headers": {"Accept-Encoding": "identity"}}
    return {}


async def _check_response(response: Any) -> None:
    requested = response.request_info.headers.get("Range")
    if requested is not None and response.status == 200:  # it would send the whole file
        raise OSError(
            f"{response.url} was requested in part ({requested}), and the server ignores ranges; copy the file"
        )
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise OSError(f"{response.url} is compressed by {encoding[:40]!r}; expected the identity encoding")


def time_limit(system: AbstractFileSystem, seconds: float) -> dict[str, Any]:
    """Return arguments that limit the time of an operation; empty unless the file system is asynchronous."""
    return {"timeout": seconds} if isinstance(system, AsyncFileSystem) else {}


@cache
def _page_class() -> type:
    import aiohttp

    class Page(aiohttp.ClientResponse):
        """HTTP response with size limits for text, the page that a pattern is matched with, and for ranges."""

        async def text(self, encoding: str | None = None, errors: str = "strict") -> str:
            body = await self._read_limited(_MAX_PAGE_BYTES, "the page")
            return body.decode(encoding or "utf-8", errors)

        async def read(self) -> bytes:
            requested = re.fullmatch(r"bytes=(\d+)-(\d+)", self.request_info.headers.get("Range", ""))
            if requested is None:
                return await super().read()
            return await self._read_limited(int(requested[2]) - int(requested[1]) + 1, "the range")

        async def _read_limited(self, max_bytes: int, what: str) -> bytes:
            body = bytearray()
            async for chunk in self.content.iter_chunked(2**16):
                body += chunk
                if len(body) > max_bytes:
                    raise OSError(f"{what} has more than {max_bytes} bytes; list or copy the files instead")
            return bytes(body)

    return Page


def list_files(system: AbstractFileSystem, path: str) -> dict[str, RemoteFile]:
    """Return all files by their paths relative to the folder; a single file has the empty path."""
    limit = time_limit(system, LIST_SECONDS)
    info = system.info(path, **limit)
    if info["type"] == "file":
        return {"": describe_file(info)}
    files = {}
    for found in system.find(path, detail=True, **limit).values():
        inner = PurePosixPath("/", found["name"]).relative_to(PurePosixPath("/", path))
        if found["type"] == "file" and not found["name"].endswith("/"):  # S3 browsers create such objects for folders
            files[inner.as_posix()] = describe_file(found)
    if not files:
        raise FileNotFoundError("the folder has no files")
    return files


def describe_file(info: Mapping[str, Any]) -> RemoteFile:
    """Return size and version of a file in a listing of fsspec."""
    version = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
    if "ino" in info:  # a local file (file://): a copy may keep the modification time
        version += f" {info['ino']} {info.get('created')}"
    modified = info.get("LastModified") or info.get("mtime")
    return RemoteFile(
        path=info["name"],
        size=info["size"],
        version=version.strip('"'),
        modified=modified.timestamp() if isinstance(modified, datetime) else modified,
    )
