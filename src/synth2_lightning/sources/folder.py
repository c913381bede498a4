"""A folder of pictures, each beside a text file of its captions."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from synth2_lightning.locations import resolve
from synth2_lightning.sources.base import Entry, IndexedSource, LeftOut
from synth2_lightning.sources.pictures import decode_picture
from synth2_lightning.tables import read_lines

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


class FolderSource(IndexedSource):
    """Pictures anywhere below a folder, the captions of ``a/b.jpg`` in ``a/b.txt``, one per line; the key is ``a/b``.

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
        for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES):
            text = path.with_suffix(".txt")
            captions = read_lines(text) if text.exists() else []
            yield Entry(path.relative_to(folder).with_suffix("").as_posix(), captions, str(path))

    def read_picture(self, location: str) -> Image.Image:
        """Read a picture."""
        return decode_picture(Path(location), location)
