"""Checks of paths that users specify, and paths in documents."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

_SPECIAL = {
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def expand_home(path: str | Path) -> Path:
    """Replace ``~`` and ``~USER`` by home folders; paths of unknown users are returned unchanged.

    Example:
        >>> expand_home("~unknown-user/captions.txt")
        PosixPath('~unknown-user/captions.txt')
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib raises a RuntimeError for unknown users


def check_not_special(path: Path) -> Path:
    """Return the path; raise if it is a pipe, a socket or a device, which could block the reader or never end.

    Raises:
        OSError: If it is one of them, or a link to one; folders and missing files pass.

    Example:
        >>> check_not_special(Path("/dev/zero"))
        Traceback (most recent call last):
        OSError: /dev/zero is a character device; expected a regular file. Copy its content to one.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except OSError:
        return path
    if kind in _SPECIAL:
        raise OSError(f"{path} is a {_SPECIAL[kind]}; expected a regular file. Copy its content to one.")
    return path


def check_output_file(out: Path, *inputs: Path) -> None:
    """Raise if a file to be written is a folder, is in a file, or is one of the inputs, which would be lost.

    Raises:
        OSError: If it is one of them.

    Example:
        >>> check_output_file(Path("captions.json"), Path("captions.json"))
        Traceback (most recent call last):
        FileExistsError: The output captions.json is an input of the command...
    """
    if out.is_dir():
        raise IsADirectoryError(
            f"The output {out} is a folder; expected the name of a file, such as {out / 'out.json'}."
        )
    if out.parent.exists() and not out.parent.is_dir():
        raise NotADirectoryError(f"The output {out} is in {out.parent}, which is a file; expected a folder.")
    if any(out.resolve() == path.resolve() for path in inputs):
        raise FileExistsError(
            f"The output {out} is an input of the command, which it would replace; expected another file."
        )


def require_file(path: Path) -> Path:
    """Return the path; raise if it is a folder, a pipe, a socket or a device.

    Raises:
        OSError: If it is one of them; missing files pass.

    Example:
        >>> require_file(Path("/"))
        Traceback (most recent call last):
        IsADirectoryError: / is a folder; expected a file. Choose a file in it.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected a file. Choose a file in it.")
    return check_not_special(path)


def unwritable(path: Path, error: OSError) -> OSError:
    """Return an error for a file or folder that cannot be written."""
    return OSError(
        f"{path} cannot be written: {error}. Expected a folder with write permission and free space: free some, or "
        "choose another folder."
    )


def shorten_paths(value: object) -> object:
    """Return a plain value with only the last component of its absolute paths, for documents that are published.

    Example:
        >>> shorten_paths({"images": ["/home/ann/photos", "data/photos"], "limit": 3})
        {'images': ['…/photos', 'data/photos'], 'limit': 3}
    """
    match value:
        case Mapping():
            return {name: shorten_paths(each) for name, each in value.items()}
        case list():
            return [shorten_paths(each) for each in value]
        case str() if expand_home(value).is_absolute():
            return f"…/{Path(value).name}"
    return value
