"""Locks that allow one writer per file or folder."""

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
    """Hold the exclusive write lock of a file inside the context.

    The lock is a ``flock`` on the hidden file ``.NAME.lock`` in the same folder. The kernel releases it when the
    process ends, but not when it is stopped (SIGSTOP). It works across machines if the NFS server supports locks. File
    systems without locks only cause a warning.

    Args:
        path: The file, which need not exist; its folder is created. Links are followed.
        seconds: How long to wait for another writer.

    Raises:
        BlockingIOError: If another process holds the lock; the message contains its id and host.
        OSError: If the folder is not writable.

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
    """Hold the exclusive write lock of a folder, ``.lock`` inside it; see :func:`lock_file`.

    A folder that was created for the lock is removed if it is empty at the end.

    Raises:
        BlockingIOError: If another process holds the lock; the message contains its id and host.
        OSError: If the folder is not writable.
    """
    is_new = not folder.exists()
    try:
        with _hold(folder / LOCK, folder, seconds):
            yield
    finally:
        if is_new:
            with suppress(OSError):  # not empty
                folder.rmdir()


@contextmanager
def _hold(lock_path: Path, target: Path, seconds: float) -> Iterator[None]:
    # filelock closes a forked child's copy: a worker that outlives a killed run does not keep the lock.
    lock = FileLock(lock_path, thread_local=False, on_acquired=_sign)
    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=seconds)
    except Timeout:
        raise BlockingIOError(
            f"{target} is being written by {_read_signature(lock_path)}; expected one writer at a time. Wait until it "
            "ends, or choose another path. Nothing was changed."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise unwritable(target, error) from error
        warnings.warn(
            f"The file system of {target} has no locks ({error.strerror}). Make sure that no second process writes "
            "there at the same time.",
            stacklevel=4,
        )
    try:
        yield
    finally:
        if lock.is_locked:
            # Before the release: filelock in a waiting process detects the removal and creates a new file.
            with suppress(OSError):
                lock_path.unlink()
            lock.release()


def _sign(descriptor: int) -> None:
    """Write process, host and time into the lock file, for the error message of other processes."""
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode(), 0)


def _read_signature(lock_path: Path) -> str:
    try:
        return lock_path.read_text("utf-8", errors="replace")[:200] or "another process"
    except OSError:  # it has just ended
        return "another process"
