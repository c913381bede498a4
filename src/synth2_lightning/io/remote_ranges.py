"""Reading of parts of remote files, without a local copy."""

import io
import logging
import time
from typing import Any

from synth2_lightning.io.remote_errors import check_no_secrets, explain
from synth2_lightning.io.remote_filesystems import open_filesystem, time_limit

MAX_BYTES = 256 * 2**20
"""Maximum size of a range, because it is read into memory."""
_BLOCK_BYTES = 2**20
_NUM_TRIES = 4
_SECONDS_PER_TRY = 60.0
_FINAL = (FileNotFoundError, PermissionError, ImportError, ValueError, MemoryError)
_logger = logging.getLogger(__name__)


def read_range(address: str, start: int, size: int, what: str) -> bytes:
    """Return some bytes of a remote file; thread-safe, and safe in processes that were forked.

    A failed request is repeated up to three times, after 1, 2 and 4 seconds.

    Args:
        address: URL of any protocol of fsspec.
        start: Number of the first byte, from 0.
        size: Number of bytes, at most 256 MiB.
        what: Name of the file, for messages.

    Raises:
        FileNotFoundError: If the URL does not exist.
        OSError: If the range is too large, or the server cannot be reached, does not respond within a minute, or
            returns another number of bytes, as servers do that ignore ranges.
        ValueError: If the protocol is unknown, or the URL contains a secret.

    Example:
        >>> import fsspec
        >>> with fsspec.open("memory://bucket/words.txt", "w") as file:
        ...     _ = file.write("a fox")
        >>> read_range("memory://bucket/words.txt", 2, 3, "words")
        b'fox'
    """
    check_no_secrets(address)
    if size > MAX_BYTES:
        raise OSError(f"{size} bytes of {address} were requested; expected at most {MAX_BYTES}, to limit memory.")
    for attempt in range(_NUM_TRIES):
        try:
            return _request(address, start, size)
        except Exception as error:  # file systems raise errors of many types
            if isinstance(error, _FINAL) or attempt == _NUM_TRIES - 1:
                raise explain(error, address, what) from error
            pause = 2.0**attempt
            _logger.warning("%s bytes of %s are requested again in %g s: %s", size, address, pause, error)
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _request(address: str, start: int, size: int) -> bytes:
    if size == 0:
        return b""
    system, path = open_filesystem(address)  # a file system must not be used after a fork; fsspec caches them
    content: bytes = system.cat_file(path, start=start, end=start + size, **time_limit(system, _SECONDS_PER_TRY))
    if len(content) != size:
        raise OSError(
            f"the server returned {len(content)} bytes, but {size} from {start} were requested. Expected a server that "
            "supports ranges, and a file that was not changed meanwhile: start again, or copy the file"
        )
    return content


class RemoteReader(io.RawIOBase):
    """Seekable file of a URL; :func:`open_remote` adds a buffer.

    Args:
        address: URL of any protocol of fsspec.
        num_bytes: Size of the file.
        what: Name of the file, for messages.
    """

    def __init__(self, address: str, num_bytes: int, what: str) -> None:
        self.address = address
        self.num_bytes = num_bytes
        self.what = what
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position of the next read."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.num_bytes}[whence]
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Read bytes into a buffer and return their number; 0 at the end of the file."""
        with memoryview(buffer) as view:
            size = max(0, min(len(view), self.num_bytes - self._position))
            view[:size] = read_range(self.address, self._position, size, self.what)
        self._position += size
        return size


def open_remote(address: str, num_bytes: int, what: str) -> io.BufferedReader:
    """Return a remote file that is read in blocks of 1 MiB, of which one is in memory.

    Args:
        address: URL of any protocol of fsspec.
        num_bytes: Size of the file, as listed.
        what: Name of the file, for messages.
    """
    return io.BufferedReader(RemoteReader(address, num_bytes, what), _BLOCK_BYTES)
