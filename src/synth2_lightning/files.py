"""Write files whole or not at all."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SPECIAL = {
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that a kill at any moment leaves the old one or the new one, never half of it.

    Args:
        path: Where the file goes; its folder is made.
        write: Writes the content to the path that it is given.

    Raises:
        OSError: If the folder cannot be written to.
    """
    draft = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(draft)
        _sync(draft)
        draft.replace(path)
        _sync(path.parent)  # else the new name itself may be lost with the power
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):  # half a file would only take the room that is lacking
            draft.unlink(missing_ok=True)


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
def write_files(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write files to, each of which takes its place in another folder when all are written.

    A kill at any moment leaves of each file the old one or the new one, never half of it, and what was not finished in
    ``.draft``, which the next to write there clears; what else the folder holds stays as it is.

    Args:
        folder: Where the files go; made if it is not there.

    Raises:
        OSError: If the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with write_files(Path(folder)) as draft:
        ...         _ = (draft / "config.json").write_text("{}")
        ...     [path.name for path in Path(folder).iterdir()]
        ['config.json']
    """
    draft = folder / ".draft"
    try:
        shutil.rmtree(draft, ignore_errors=True)  # of a writer that was killed
        draft.mkdir(parents=True)
        yield draft
        files = sorted(draft.iterdir())
        for file in files:
            file.chmod(0o644)  # safetensors gives its files to their owner alone
            _sync(file)
        for file in files:
            file.replace(folder / file.name)
        _sync(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


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
