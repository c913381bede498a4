"""Find the pictures that somebody means: files, folders, globs and addresses on the web."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".ico", ".jfif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".qoi", ".tga"}
    | {".tif", ".tiff", ".webp"}
)
"""How the names of pictures end, in lower case: what is taken from a folder."""


_LEFT_BY_SYSTEMS = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"})


def is_left_by_system(path: PurePath) -> bool:
    """Return whether macOS or Windows made a file for itself: macOS's ``._`` files have the names of pictures.

    Example:
        >>> [is_left_by_system(PurePath(name)) for name in (".a/b.jpg", ".a/._b.jpg", "__MACOSX/b.jpg")]
        [False, True, True]
    """
    return any(part.startswith("._") or part in _LEFT_BY_SYSTEMS for part in path.parts)


def is_hidden(path: PurePath) -> bool:
    """Return whether a file is hidden, or one that a system made for itself.

    Args:
        path: Relative to the folder or the archive that is searched.

    Example:
        >>> [is_hidden(PurePath(name)) for name in ("a/b.jpg", "a/._b.jpg", "__MACOSX/b.jpg", "../b.jpg")]
        [False, True, True, False]
    """
    return is_left_by_system(path) or any(part.startswith(".") and part != ".." for part in path.parts)


@dataclass(frozen=True, slots=True)
class FoundPictures:
    """What was found.

    Args:
        names: Paths and addresses, each once, in the order in which they were given; those of a folder are sorted.
        missing: Names of what is not there, with reasons.
        num_others: Files of folders that are no pictures by the end of their names.
    """

    names: tuple[str, ...]
    missing: tuple[tuple[str, str], ...] = ()
    num_others: int = 0


def find_pictures(given: Sequence[str], allow_urls: bool = False) -> FoundPictures:
    """Find pictures by what was given on a command line.

    Args:
        given: Files, whatever their names; folders, searched to the bottom for files that are called like pictures,
            hidden ones left out and links to other folders not followed; patterns with ``*``, ``?``, ``[...]`` and
            ``**``; addresses.
        allow_urls: Whether addresses on the web may be fetched.

    Raises:
        ValueError: If there is an address and none is allowed, or one that is neither http nor https.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "b.jpg").write_bytes(b""), (Path(folder) / "a.PNG").write_bytes(b"")
        ...     [Path(name).name for name in find_pictures([folder]).names]
        ['a.PNG', 'b.jpg']
    """
    search = _Search()
    for word in given:
        if "://" in word:
            _check_address(word, allow_urls)
            search.take(word, word)
        else:
            search.look_at(word)
    return FoundPictures(tuple(search.names.values()), tuple(search.missing), search.num_others)


class _Search:
    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.missing: list[tuple[str, str]] = []
        self.num_others = 0

    def take(self, identity: str, name: str) -> None:
        self.names.setdefault(identity, name)

    def look_at(self, word: str) -> None:
        path = os.path.expanduser(word)  # noqa: PTH111 - pathlib would lose the spelling of patterns
        if os.path.lexists(path):
            self._enter(path)
        elif not glob.has_magic(path):
            self.missing.append((word, "there is no such file or folder"))
        elif matches := sorted(glob.glob(path, recursive=True)):  # noqa: PTH207 - patterns may be absolute
            for match in matches:
                self._enter(match)
        else:
            self.missing.append((word, "no file matches this pattern"))

    def _enter(self, path: str) -> None:
        if not Path(path).is_dir():
            self.take(os.path.abspath(path), path)  # noqa: PTH100 - resolve() would follow links to one picture
            return
        for file in self._walk(path):
            if Path(file).suffix.lower() in SUFFIXES:
                self.take(os.path.abspath(file), file)  # noqa: PTH100
            else:
                self.num_others += 1

    def _walk(self, folder: str) -> Iterator[str]:
        def report(error: OSError) -> None:
            self.missing.append((str(error.filename), f"the folder cannot be read: {error.strerror}"))

        for parent, folders, files in os.walk(folder, onerror=report):
            folders[:] = sorted(name for name in folders if not is_hidden(PurePath(name)))
            yield from (os.path.join(parent, name) for name in sorted(files) if not is_hidden(PurePath(name)))  # noqa: PTH118


def _check_address(url: str, allow_urls: bool) -> None:
    scheme = url.partition("://")[0].lower()
    if scheme not in ("http", "https"):
        raise ValueError(f"{url!r} is an address by {scheme!r}; expected a path, or an address by http or https.")
    if not allow_urls:
        raise ValueError(
            f"{url!r} is an address on the web, and nothing is fetched from there unasked. Add --allow-urls to allow "
            "it, or give a path."
        )
