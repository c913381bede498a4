"""Write files and folders atomically."""

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from synth2_lightning.io.locks import LOCK, SECONDS_FOR_A_FILE, lock_file, lock_folder
from synth2_lightning.io.paths import unwritable

_DRAFT, _WHOLE = ".draft", ".replacement"
OWN_NAMES = frozenset({_DRAFT, _WHOLE, LOCK})
"""What writers keep in a folder while they work, and leave there where they are killed."""


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
    with lock_file(path, SECONDS_FOR_A_FILE):
        try:
            draft.touch()
            mode = (path if path.exists() else draft).stat().st_mode
            write(draft)
            draft.chmod(mode)  # some writers bring one of their own: safetensors gives its files to their owner alone
            _sync(draft)
            draft.replace(path)
            _sync(path.parent)  # else the new name itself may be lost with the power
        except OSError as error:
            raise unwritable(path, error) from error
        finally:
            with suppress(OSError):  # half a file would only take the room that is lacking
                draft.unlink(missing_ok=True)


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
            raise unwritable(folder, error) from error
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
