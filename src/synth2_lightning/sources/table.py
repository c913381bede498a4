"""Photographs with captions in a table: CSV, TSV, JSON Lines or Parquet."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from synth2_lightning.locations import resolve
from synth2_lightning.sources.base import Entry, IndexedSource, LeftOut
from synth2_lightning.sources.jsonfile import read_text
from synth2_lightning.sources.pictures import decode_picture
from synth2_lightning.tables import read_rows

_EXPECTED = "one file name and one caption in every row"


class TableSource(IndexedSource):
    """Photographs in a folder, one caption per row of a table; rows of the same file are captions of one picture.

    The kind of table is read off the suffix: ``.csv`` and ``.tsv`` with a header line, ``.jsonl`` with one object per
    line, ``.parquet``. The key is the file name as the table says it.

    Args:
        table: The table.
        images: Folder that the file names are relative to.
        file_column: Column of the file names.
        caption_column: Column of the captions.
        name: Short name for logs.
        limit: Keep the first pictures only.

    Example:
        >>> TableSource("results.csv", "flickr30k", file_column="image", caption_column="comment").name
        'table'
    """

    def __init__(
        self,
        table: str,
        images: str,
        file_column: str = "file_name",
        caption_column: str = "caption",
        name: str = "table",
        limit: int | None = None,
    ) -> None:
        super().__init__(name, limit)
        self.table = table
        self.images = images
        self.file_column = file_column
        self.caption_column = caption_column

    def read_index(self, left_out: LeftOut) -> Iterator[Entry]:
        """Gather the rows of every file.

        Raises:
            FileNotFoundError: If the table or the folder does not exist.
            ValueError: If the table is of another kind, or lacks a column.
        """
        path = resolve(self.table, f"table of source {self.name!r}")
        folder = resolve(self.images, f"images folder of source {self.name!r}")
        captions: dict[str, list[str]] = {}
        for number, row in enumerate(read_rows(path, (self.file_column, self.caption_column)), start=1):
            file_name = read_text(row, self.file_column, path, _EXPECTED).strip()
            if file_name:
                captions.setdefault(file_name, []).append(read_text(row, self.caption_column, path, _EXPECTED))
            else:
                left_out.add("records without a file name", f"record {number}")
        for file_name, texts in captions.items():
            yield Entry(file_name, texts, str(folder / file_name))

    def read_picture(self, location: str) -> Image.Image:
        """Read a photograph."""
        return decode_picture(Path(location), location)
