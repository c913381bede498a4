"""A folder of images with captions in text files of the same name."""

from collections.abc import Iterator
from pathlib import Path

from synth2_lightning.io.locations import resolve
from synth2_lightning.io.tables import read_lines
from synth2_lightning.sources.base import Entry, IndexedSource, SkipCounter
from synth2_lightning.sources.image_files import SUFFIXES, is_hidden


class FolderSource(IndexedSource):
    """Image source of a folder and its subfolders: ``a/b.txt`` has the captions of ``a/b.jpg``, one per line.

    The key of ``a/b.jpg`` is ``a/b``. Suffixes are case-insensitive. Hidden files and metadata files of macOS and
    Windows are skipped.

    Args:
        images: The folder.
        name: Short name for logs.
        limit: Maximum number of images, in the order of their names; ``None`` keeps all.
    """

    def __init__(self, images: str, name: str = "folder", limit: int | None = None) -> None:
        super().__init__(name, limit)
        self.images = images

    def read_index(self, skipped: SkipCounter) -> Iterator[Entry]:
        """Yield the images in the order of their names.

        Raises:
            FileNotFoundError: If the folder does not exist.
        """
        folder = resolve(self.images, f"images folder of source {self.name!r}")
        paths: list[Path] = []
        texts: dict[Path, Path] = {}
        for path in sorted(folder.rglob("*")):
            is_text = path.suffix.lower() == ".txt"
            if not is_text and path.suffix.lower() not in SUFFIXES:
                continue
            if is_hidden(path.relative_to(folder)):
                skipped.add("hidden files", str(path))
            elif not is_text:
                paths.append(path)
            elif texts.setdefault(path.with_suffix(""), path) != path:
                skipped.add("repeated texts of an image", str(path))
        for path in paths:
            text = texts.pop(path.with_suffix(""), None)
            captions = read_lines(text) if text else []
            yield Entry(path.relative_to(folder).with_suffix("").as_posix(), captions, str(path))
        for text in texts.values():
            skipped.add("texts without an image", str(text))
