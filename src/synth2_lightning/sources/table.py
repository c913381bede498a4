"""Photographs with captions in a table: CSV, TSV, JSON Lines or Parquet."""

from collections.abc import Iterator
from pathlib import Path, PurePath

from PIL import Image

from synth2_lightning.locations import resolve
from synth2_lightning.sources.base import Entry, IndexedSource, LeftOut
from synth2_lightning.sources.picture_files import is_left_by_system
from synth2_lightning.sources.pictures import decode_picture
from synth2_lightning.tables import read_rows, take_text


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
        delimiter: The character between the fields of a ``.csv`` or ``.tsv`` table, where it is another than usual.

    Example:
        >>> TableSource("results.csv", "flickr30k", "image_name", "comment", delimiter="|").name
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
        delimiter: str | None = None,
    ) -> None:
        super().__init__(name, limit)
        self.table = table
        self.images = images
        self.file_column = file_column
        self.caption_column = caption_column
        self.delimiter = delimiter

    def read_index(self, left_out: LeftOut) -> Iterator[Entry]:
        """Gather the rows of every file.

        Raises:
            FileNotFoundError: If the table or the folder does not exist.
            ValueError: If the table is of another kind, or lacks a column, or a row holds something else than a text.
        """
        path = resolve(self.table, f"table of source {self.name!r}")
        folder = resolve(self.images, f"images folder of source {self.name!r}")
        captions: dict[str, list[str]] = {}
        columns = (self.file_column, self.caption_column)
        for number, row in enumerate(read_rows(path, columns, self.delimiter), start=1):
            where = f"{path}, record {number},"
            file_name = take_text(row[self.file_column], where, self.file_column).strip()
            if not file_name:
                left_out.add("records without a file name", f"record {number}")
            elif is_left_by_system(PurePath(file_name)):
                left_out.add("records of files that a system made for itself", f"record {number}, {file_name}")
            else:
                caption = take_text(row[self.caption_column], where, self.caption_column)
                captions.setdefault(file_name, []).append(caption)
        for file_name, texts in captions.items():
            yield Entry(file_name, texts, str(folder / file_name))

    def read_picture(self, location: str) -> Image.Image:
        """Read a photograph."""
        return decode_picture(Path(location), location)
