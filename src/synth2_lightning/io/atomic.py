"""Write files and folders atomically."""

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from synth2_lightning.io.locks import LOCK, SECONDS_FOR_A_FILE, lock_file, lock_folder
from synth2_lightning.io.paths import unwritable

_DRAFT, _REPLACEMENT = ".draft", ".replacement"
OWN_NAMES = frozenset({_DRAFT, _REPLACEMENT, LOCK})
"""Temporary names that writers use in a folder; a killed writer leaves them behind."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file atomically: a kill at any moment leaves the old file or the new one.

    The new file gets the permissions of the old one, or the umask's default. Of two processes that write the same file,
    the second waits for the first.

    Args:
        path: The file; its folder is created.
        write: Writes the content to a given path.

    Raises:
        OSError: If the folder is not writable.
    """
    draft = path.with_name(f"{path.name}.tmp")
    with lock_file(path, SECONDS_FOR_A_FILE):
        try:
            draft.unlink(missing_ok=True)  # of a killed writer, or a link in a downloaded folder
            draft.touch(exist_ok=False)
            mode = (path if path.exists() else draft).stat().st_mode
            write(draft)
            draft.chmod(mode)  # safetensors creates files that only their owner can read
            _sync(draft)
            draft.replace(path)
            _sync(path.parent)  # otherwise a power failure may lose the new name
        except OSError as error:
            raise unwritable(path, error) from error
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically; raises as :func:`write_atomically` does."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda draft: draft.write_text(text, "utf-8"))


@contextmanager
def write_files(folder: Path, replaced: Collection[str] = ()) -> Iterator[Path]:
    """Yield an empty folder for new files, and move them into ``folder`` together on exit.

    A kill at any moment leaves all old files or all new files to readers that use :func:`complete_folder`: the new
    files are completed in the hidden folder ``.replacement`` and then linked into ``folder`` one by one. The next
    writer finishes the work of a killed one. Other files in ``folder`` are kept.

    Args:
        folder: Destination; created if missing.
        replaced: Names to delete from ``folder`` if they are not among the new files.

    Raises:
        BlockingIOError: If another process writes to the folder.
        OSError: If the folder is not writable.

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
            _install(folder, replaced, is_new=False)  # complete files of a killed writer
            _remove(draft)
            draft.mkdir()
            yield draft
            for file in sorted(draft.rglob("*")):
                set_default_mode(file)
                _sync(file)
            draft.rename(folder / _REPLACEMENT)
            _sync(folder)
            _install(folder, replaced, is_new=True)
        except OSError as error:
            if error.errno is None and not isinstance(error, shutil.Error):
                raise  # not from the operating system but from the caller's checks
            raise unwritable(folder, error) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def complete_folder(folder: Path) -> Path:
    """Return the folder to read the files of :func:`write_files` from.

    It is ``folder`` itself, or ``.replacement`` inside while a writer moves the files or if it was killed meanwhile.
    """
    return folder / _REPLACEMENT if _is_folder(folder / _REPLACEMENT) else folder


def _install(folder: Path, replaced: Collection[str], is_new: bool) -> None:
    """Link the complete new files into ``folder``; ``.replacement`` stays complete until all are linked."""
    complete, draft = folder / _REPLACEMENT, folder / _DRAFT
    if not _is_folder(complete):
        _remove(complete)
        return
    _remove(draft)
    draft.mkdir()
    names = sorted(path.name for path in complete.iterdir())
    is_untouched = is_new  # if linking the first file then fails, all old files are kept
    try:
        for name in names:
            copy, target = draft / name, folder / name
            if (complete / name).is_dir():
                shutil.copytree(complete / name, copy, copy_function=_link)
                is_untouched = False
                if target.is_dir():
                    target.rename(draft / f"{name}.old")
            else:
                _link(complete / name, copy)
            copy.replace(target)
            is_untouched = False
    except OSError:
        if is_untouched:
            _remove(draft)
            complete.rename(draft)
        raise
    for name in set(replaced) - set(names):
        _remove(folder / name)
    _sync(folder)
    _remove(draft)
    complete.rename(draft)  # atomic for readers, unlike the deletion
    _remove(draft)


def _link(source: Path | str, copy: Path | str) -> None:
    try:
        os.link(source, copy)
    except OSError:  # the file system has no hard links
        shutil.copyfile(source, copy)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()  # a link in a downloaded folder may lead anywhere


def _remove(path: Path) -> None:
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def set_default_mode(path: Path) -> None:
    """Set the permissions of a file or folder to the umask's default; its parent folder must be writable."""
    sample = path.with_name(f"{path.name}.mode")  # os.umask() reads the umask only by changing it for all threads
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
