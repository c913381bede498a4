"""Paths that a user names, and what the file system says of them."""

import os
import stat
from pathlib import Path

_SPECIAL = {
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


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


def unwritable(path: Path, error: OSError) -> OSError:
    """Return an error that names the file or folder that could not be written."""
    return OSError(
        f"{path} cannot be written: {error}. Expected a folder that may be written to, with room left; free some, "
        "or choose another folder."
    )
