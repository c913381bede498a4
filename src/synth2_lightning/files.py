"""Write files atomically, one writer at a time."""

import errno
import os
import shutil
import socket
import stat
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

_SPECIAL = {
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}

_DRAFT, _WHOLE, _LOCK = ".draft", ".replacement", ".lock"
OWN_NAMES = frozenset({_DRAFT, _WHOLE, _LOCK})
"""What writers keep in a folder while they work, and leave there where they are killed."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_SECONDS_FOR_A_FILE = 30.0
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
    with _hold(real.with_name(f".{real.name}{_LOCK}"), path, seconds):
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
        with _hold(folder / _LOCK, folder, seconds):
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
            raise _unwritable(target, error) from error
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


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that a kill at any moment leaves the old one or the new one, never half of it.

    The file has the permissions of the one that it replaces, or those that the umask gives to a new one.
    Of two processes that write the same file, the second waits for the first.

    Args:
        path: Where the file goes; its folder is made.
        write: Writes the content to the path that it is given.

    Raises:
        OSError: If the folder cannot be written to.
    """
    draft = path.with_name(f"{path.name}.tmp")
    with lock_file(path, _SECONDS_FOR_A_FILE):
        try:
            draft.touch()
            mode = (path if path.exists() else draft).stat().st_mode
            write(draft)
            draft.chmod(mode)  # some writers bring one of their own: safetensors gives its files to their owner alone
            _sync(draft)
            draft.replace(path)
            _sync(path.parent)  # else the new name itself may be lost with the power
        except OSError as error:
            raise _unwritable(path, error) from error
        finally:
            with suppress(OSError):  # half a file would only take the room that is lacking
                draft.unlink(missing_ok=True)


def expand_home(path: str | Path) -> Path:
    """Return a path with ``~`` and ``~USER`` replaced by the folders of these users; as it is where there is no such.

    Example:
        >>> expand_home("~nobody-of-this-name/captions.txt")
        PosixPath('~nobody-of-this-name/captions.txt')
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib has a RuntimeError for users that are not there


def refuse_special(path: Path) -> Path:
    """Refuse what lies where a file was expected and is none: a pipe would block the reader, a device has no end.

    Args:
        path: What is to be read; folders, and what does not exist, are left to whoever reads it.

    Returns:
        The path.

    Raises:
        OSError: If it is a pipe, a socket or a device, or a link to one.

    Example:
        >>> refuse_special(Path("/dev/zero"))
        Traceback (most recent call last):
        OSError: /dev/zero is a character device and no regular file; expected a file. Copy what it gives to one.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except OSError:
        return path
    if kind in _SPECIAL:
        raise OSError(f"{path} is a {_SPECIAL[kind]} and no regular file; expected a file. Copy what it gives to one.")
    return path


def require_file(path: Path) -> Path:
    """Refuse a folder, too, where a file was expected; otherwise as :func:`refuse_special`.

    Returns:
        The path.

    Raises:
        OSError: If it is a folder, or none of the things that have an end.

    Example:
        >>> require_file(Path("/"))
        Traceback (most recent call last):
        IsADirectoryError: / is a folder; expected a file. Name one that lies in it.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected a file. Name one that lies in it.")
    return refuse_special(path)


@contextmanager
def write_files(folder: Path, replaced: Collection[str] = ()) -> Iterator[Path]:
    """Give an empty folder to write files to, which take their places in another folder together.

    A kill at any moment leaves all of the old files or all of the new ones to who reads from :func:`whole_folder`: the
    new ones count as soon as they are complete, in the hidden folder ``.replacement``, from where they are linked to
    their places one by one. The next to write there finishes what was killed. What else the folder holds stays.

    Args:
        folder: Where the files go; made if it is not there.
        replaced: Names of what goes where it is not written anew.

    Raises:
        BlockingIOError: If another process writes there.
        OSError: If the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with write_files(Path(folder)) as draft:
        ...         _ = (draft / "config.json").write_text("{}")
        ...     [path.name for path in Path(folder).iterdir()]
        ['config.json']
    """
    draft = folder / _DRAFT
    with lock_folder(folder):
        try:
            _put_in_place(folder, replaced, is_new=False)  # what a writer that was killed had completed
            _remove(draft)
            draft.mkdir()
            yield draft
            for file in sorted(draft.rglob("*")):
                set_default_mode(file)
                _sync(file)
            draft.rename(folder / _WHOLE)
            _sync(folder)
            _put_in_place(folder, replaced, is_new=True)
        except OSError as error:
            if error.errno is None and not isinstance(error, shutil.Error):
                raise  # no word of the system: what was written is not as it should be
            raise _unwritable(folder, error) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def whole_folder(folder: Path) -> Path:
    """Give where to read files that :func:`write_files` wrote.

    That is the folder itself, unless they are taking their places right now, or their writer was killed meanwhile.

    Example:
        >>> whole_folder(Path("captioner"))
        PosixPath('captioner')
    """
    return folder / _WHOLE if (folder / _WHOLE).is_dir() else folder


def _put_in_place(folder: Path, replaced: Collection[str], is_new: bool) -> None:
    """Link complete new files to their places; they stay whole in their own folder until all are there.

    Args:
        folder: Of the places.
        replaced: Names of what goes where it is not among the new files.
        is_new: Whether none can be in its place yet. Where the first cannot be put there, all of the old ones stay.
    """
    whole, draft = folder / _WHOLE, folder / _DRAFT
    if not whole.is_dir():
        return
    _remove(draft)
    draft.mkdir()
    new = sorted(path.name for path in whole.iterdir())
    is_untouched = is_new
    try:
        for name in new:
            copy, place = draft / name, folder / name
            if (whole / name).is_dir():
                shutil.copytree(whole / name, copy, copy_function=_link)
                is_untouched = False
                if place.is_dir():
                    place.rename(draft / f"{name}.old")
            else:
                _link(whole / name, copy)
            copy.replace(place)
            is_untouched = False
    except OSError:
        if is_untouched:
            _remove(draft)
            whole.rename(draft)
        raise
    for name in set(replaced) - set(new):
        _remove(folder / name)
    _sync(folder)
    _remove(draft)
    whole.rename(draft)  # first out of the readers' sight, then away
    _remove(draft)


def _link(source: Path | str, copy: Path | str) -> None:
    try:
        os.link(source, copy)
    except OSError:  # not every file system has hard links
        shutil.copyfile(source, copy)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def set_default_mode(path: Path) -> None:
    """Give a file or a folder the permissions that the umask gives to a new one, whatever its writer gave it.

    Args:
        path: The file or folder; what it lies in can be written to.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights"
        >>> path.touch(0o600)
        >>> before = os.umask(0o027)
        >>> set_default_mode(path)
        >>> _ = os.umask(before)
        >>> oct(path.stat().st_mode & 0o777)
        '0o640'
    """
    sample = path.with_name(f"{path.name}.mode")  # the umask itself can be read only by changing it, for all threads
    make, remove = (sample.mkdir, sample.rmdir) if path.is_dir() else (sample.touch, sample.unlink)
    make()
    try:
        path.chmod(sample.stat().st_mode)
    finally:
        remove()


def _unwritable(path: Path, error: OSError) -> OSError:
    return OSError(
        f"{path} cannot be written: {error}. Expected a folder that may be written to, with room left; free some, "
        "or choose another folder."
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
