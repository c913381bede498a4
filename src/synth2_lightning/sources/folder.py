"""A folder of pictures, each beside a text file of its captions."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from synth2_lightning.locations import resolve
from synth2_lightning.sources.base import Entry, IndexedSource, LeftOut
from synth2_lightning.sources.picture_files import SUFFIXES, is_hidden
from synth2_lightning.sources.pictures import decode_picture
from synth2_lightning.tables import read_lines


class FolderSource(IndexedSource):
    """Pictures anywhere below a folder, the captions of ``a/b.jpg`` in ``a/b.txt``, one per line; the key is ``a/b``.

    Suffixes may be in capitals. Hidden files are left out, and so are those that macOS and Windows make for themselves.

    Args:
        images: The folder.
        name: Short name for logs.
        limit: Keep the first pictures only, in the order of their names.

    Example:
        >>> FolderSource("holidays", limit=10).name
        'folder'
    """

    def __init__(self, images: str, name: str = "folder", limit: int | None = None) -> None:
        super().__init__(name, limit)
        self.images = images

    def read_index(self, left_out: LeftOut) -> Iterator[Entry]:
        """Go through the pictures in the order of their names.

        Raises:
            FileNotFoundError: If the folder does not exist.
        """
        folder = resolve(self.images, f"images folder of source {self.name!r}")
        pictures: list[Path] = []
        texts: dict[Path, Path] = {}
        for path in sorted(folder.rglob("*")):
            is_text = path.suffix.lower() == ".txt"
            if not is_text and path.suffix.lower() not in SUFFIXES:
                continue
            if is_hidden(path.relative_to(folder)):
                left_out.add("hidden files", str(path))
            elif not is_text:
                pictures.append(path)
            elif texts.setdefault(path.with_suffix(""), path) != path:
                left_out.add("texts of a picture that has one already", str(path))
        for path in pictures:
            text = texts.pop(path.with_suffix(""), None)
            captions = read_lines(text) if text else []
            yield Entry(path.relative_to(folder).with_suffix("").as_posix(), captions, str(path))
        for text in texts.values():
            left_out.add("texts without a picture", str(text))

    def read_picture(self, location: str) -> Image.Image:
        """Read a picture."""
        return decode_picture(Path(location), location)
