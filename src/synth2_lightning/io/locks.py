"""Locks on files and folders: one writer at a time."""

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from synth2_lightning.io.paths import unwritable

LOCK = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
SECONDS_FOR_A_FILE = 30.0
_SECONDS_FOR_A_RUN = 1.0


@contextmanager
def lock_file(path: Path, seconds: float = _SECONDS_FOR_A_RUN) -> Iterator[None]:
    """Be the only writer of a file while the context lasts; another process that tries is refused.

    The lock is the kernel's (``flock``) on a hidden file beside, ``.NAME.lock``. It ends with the process, however that
    ends; a process that is stopped (SIGSTOP) keeps it. Over NFS it holds between machines where the server has locks.
    A file system without locks is warned of, and written to all the same.

    Args:
        path: The file, which need not exist; its folder is made. Links are followed.
        seconds: How long to wait for another writer before it is an error.

    Raises:
        BlockingIOError: If another process writes it, with its number and host.
        OSError: If the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, lock_file(Path(folder) / "captions.jsonl"):
        ...     [path.name for path in Path(folder).iterdir()]
        ['.captions.jsonl.lock']
    """
    real = Path(os.path.realpath(path))
    with _hold(real.with_name(f".{real.name}{LOCK}"), path, seconds):
        yield


@contextmanager
def lock_folder(folder: Path, seconds: float = _SECONDS_FOR_A_RUN) -> Iterator[None]:
    """Be the only writer of a folder while the context lasts; see :func:`lock_file`. The lock is ``.lock`` inside.

    A folder that is made for it and is empty in the end is removed.

    Raises:
        BlockingIOError: If another process writes there, with its number and host.
        OSError: If the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, lock_folder(Path(folder)):
        ...     [path.name for path in Path(folder).iterdir()]
        ['.lock']
    """
    is_new = not folder.exists()
    try:
        with _hold(folder / LOCK, folder, seconds):
            yield
    finally:
        if is_new:
            with suppress(OSError):  # it holds something
                folder.rmdir()


@contextmanager
def _hold(lock_path: Path, target: Path, seconds: float) -> Iterator[None]:
    # Not shared between processes by a fork: filelock closes the child's copy, so that a worker which outlives a killed
    # run does not keep the lock.
    lock = FileLock(lock_path, thread_local=False, on_acquired=_sign)
    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=seconds)
    except Timeout:
        raise BlockingIOError(
            f"{target} is being written by {_read_signature(lock_path)}. Expected one writer at a time: wait until it "
            "has ended, or name another place to write to. Nothing was changed."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise unwritable(target, error) from error
        warnings.warn(
            f"The file system of {target} has no locks ({error.strerror}): nothing keeps a second process from writing "
            "there at the same time. See to it that there is none.",
            stacklevel=4,
        )
    try:
        yield
    finally:
        if lock.is_locked:
            # While it is held: who waits for the removed file finds out that it is, and makes a new one.
            with suppress(OSError):
                lock_path.unlink()
            lock.release()


def _sign(descriptor: int) -> None:
    """Write who holds a lock into it, for the message of who does not get it."""
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode(), 0)


def _read_signature(lock_path: Path) -> str:
    try:
        return lock_path.read_text("utf-8", errors="replace")[:200] or "another process"
    except OSError:  # it ended in this moment
        return "another process"
