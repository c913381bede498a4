"""File systems behind addresses, by fsspec: opened with time limits, and listed with sizes and versions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import fsspec
import fsspec.config
from fsspec.asyn import AsyncFileSystem

MD5 = re.compile(r"[0-9a-f]{32}")
_VERSIONS = (
    *("ETag", "etag", "md5Hash", "Content-MD5", "Digest", "blob_id", "sha"),
    *("LastModified", "Last-Modified", "last_modified", "mtime", "modify", "created"),
)
"""By what the file systems of fsspec tell one content of a file from the next; the first one that there is counts."""
HTTP = ("http", "https")
SECONDS_TO_BEGIN = 60.0
SLOWEST = 20_000
"""Bytes per second of a file that is fetched, on average, after its beginning."""
SECONDS_TO_LIST = 300.0
_MOST_OF_A_PAGE = 32 * 2**20


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as its server lists it.

    Args:
        path: Its path on the file system.
        size: In bytes; ``None`` if the server does not give it.
        version: Differs between two contents of the same path; empty if the server does not give any.
        modified: Seconds since 1970.
    """

    path: str
    size: int | None
    version: str
    modified: float | None = field(compare=False)

    @property
    def md5(self) -> str | None:
        """What S3 gives as the ETag of what was uploaded in one go, and was not encrypted with a key of its own."""
        return self.version if MD5.fullmatch(self.version) else None


def open_filesystem(address: str) -> tuple[Any, str]:
    """Return the file system behind an address, with no listing kept from before, and the path on it."""
    protocol = address.partition("://")[0]
    chosen = fsspec.config.conf.get(protocol, {})  # by the user, which counts
    options = {name: value for name, value in _options(protocol).items() if name not in chosen}
    system, path = fsspec.core.url_to_fs(address, **options)
    system.invalidate_cache()  # a process that lives long would not see what changed
    return system, path


def _options(protocol: str) -> dict[str, Any]:
    if protocol == "s3":  # s3fs tries five times; five times five are minutes
        return {"config_kwargs": {"retries": {"max_attempts": 0}}}
    if protocol in HTTP:
        import aiohttp

        # Five minutes are too few for a large file; deadline holds for small ones, too.
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


def time_limit(system: Any, seconds: float) -> dict[str, Any]:
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


def list_files(system: Any, path: str) -> dict[str, RemoteFile]:
    """All files by their paths below the folder; of a file, itself under the empty path."""
    limit = time_limit(system, SECONDS_TO_LIST)
    info = system.info(path, **limit)
    if info["type"] == "file":
        return {"": _to_file(info)}
    files = {}
    for found in system.find(path, detail=True, **limit).values():
        inner = PurePosixPath("/", found["name"]).relative_to(PurePosixPath("/", path))
        if found["type"] == "file" and not found["name"].endswith("/"):  # browsers of buckets make such for folders
            files[inner.as_posix()] = _to_file(found)
    if not files:
        raise FileNotFoundError("there is a folder, and no file in it")
    return files


def _to_file(info: Mapping[str, Any]) -> RemoteFile:
    version = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
    if "ino" in info:  # of a disk here (file://), where a copy keeps its time, but not when it came
        version += f" {info['ino']} {info.get('created')}"
    modified = info.get("LastModified") or info.get("mtime")
    return RemoteFile(
        path=info["name"],
        size=info["size"],
        version=version.strip('"'),
        modified=modified.timestamp() if isinstance(modified, datetime) else modified,
    )
