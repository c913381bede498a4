"""Search for image files by path, folder, glob pattern or URL."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".ico", ".jfif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".qoi", ".tga"}
    | {".tif", ".tiff", ".webp"}
)
"""Suffixes of image files, in lower case; folders are searched for these."""


_SYSTEM_FILES = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"})


def is_system_file(path: PurePath) -> bool:
    """Return whether a path is a metadata file of macOS or Windows; ``._`` files of macOS have names of images.

    Example:
        >>> [is_system_file(PurePath(name)) for name in (".a/b.jpg", ".a/._b.jpg", "__MACOSX/b.jpg")]
        [False, True, True]
    """
    return any(part.startswith("._") or part in _SYSTEM_FILES for part in path.parts)


def is_hidden(path: PurePath) -> bool:
    """Return whether a file is hidden, or a metadata file of macOS or Windows.

    Args:
        path: Path relative to the searched folder or archive.

    Example:
        >>> [is_hidden(PurePath(name)) for name in ("a/b.jpg", "a/._b.jpg", "__MACOSX/b.jpg", "../b.jpg")]
        [False, True, True, False]
    """
    return is_system_file(path) or any(part.startswith(".") and part != ".." for part in path.parts)


@dataclass(frozen=True, slots=True)
class FoundImages:
    """Result of :func:`find_images`.

    Args:
        names: Unique paths and URLs in the given order; those of a folder are sorted.
        missing: Inputs that were not found, each with the reason.
        num_others: Number of files in folders that have no image suffix.
    """

    names: tuple[str, ...]
    missing: tuple[tuple[str, str], ...] = ()
    num_others: int = 0


def find_images(given: Sequence[str], allow_urls: bool = False) -> FoundImages:
    """Return the images that command line arguments name.

    Args:
        given: Files of any name; folders, searched recursively for files with image suffixes, without hidden files and
            without following links to folders; patterns with ``*``, ``?``, ``[...]`` and ``**``; URLs.
        allow_urls: Whether URLs may be fetched.

    Raises:
        ValueError: If a URL is not allowed, or is neither http nor https.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "b.jpg").write_bytes(b""), (Path(folder) / "a.PNG").write_bytes(b"")
        ...     [Path(name).name for name in find_images([folder]).names]
        ['a.PNG', 'b.jpg']
    """
    search = _Search()
    for word in given:
        if "://" in word:
            _check_url(word, allow_urls)
            search.add(word, word)
        else:
            search.expand(word)
    return FoundImages(tuple(search.names.values()), tuple(search.missing), search.num_others)


class _Search:
    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.missing: list[tuple[str, str]] = []
        self.num_others = 0

    def add(self, identity: str, name: str) -> None:
        self.names.setdefault(identity, name)

    def expand(self, word: str) -> None:
        path = os.path.expanduser(word)  # noqa: PTH111 - pathlib would normalize patterns
        if os.path.lexists(path):
            self._add_path(path)
        elif not glob.has_magic(path):
            self.missing.append((word, "there is no such file or folder"))
        elif matches := sorted(glob.glob(path, recursive=True)):  # noqa: PTH207 - patterns may be absolute
            for match in matches:
                self._add_path(match)
        else:
            self.missing.append((word, "no file matches this pattern"))

    def _add_path(self, path: str) -> None:
        if not Path(path).is_dir():
            self.add(os.path.abspath(path), path)  # noqa: PTH100 - resolve() would merge links to one image
            return
        for file in self._walk(path):
            if Path(file).suffix.lower() in SUFFIXES:
                self.add(os.path.abspath(file), file)  # noqa: PTH100
            else:
                self.num_others += 1

    def _walk(self, folder: str) -> Iterator[str]:
        def report(error: OSError) -> None:
            self.missing.append((str(error.filename), f"the folder cannot be read: {error.strerror}"))

        for parent, folders, files in os.walk(folder, onerror=report):
            folders[:] = sorted(name for name in folders if not is_hidden(PurePath(name)))
            yield from (os.path.join(parent, name) for name in sorted(files) if not is_hidden(PurePath(name)))  # noqa: PTH118


def _check_url(url: str, allow_urls: bool) -> None:
    scheme = url.partition("://")[0].lower()
    if scheme not in ("http", "https"):
        raise ValueError(f"{url!r} has the URL scheme {scheme!r}; expected a path, or a URL with http or https.")
    if not allow_urls:
        raise ValueError(
            f"{url!r} is a URL, and URLs are not fetched by default; expected a path. Add --allow_urls to allow URLs."
        )
