"""Write a file whole or not at all."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


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
        raise OSError(
            f"{path} cannot be written: {error}. Expected a folder that may be written to, with room left; free some, "
            "or choose another folder."
        ) from error
    finally:
        with suppress(OSError):  # half a file would only take the room that is lacking
            draft.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
