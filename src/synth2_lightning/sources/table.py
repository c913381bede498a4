"""Photos with captions in a table: CSV, TSV, JSON Lines or Parquet."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePath

from synth2_lightning.io.locations import resolve
from synth2_lightning.io.tables import read_rows, take_text
from synth2_lightning.sources.base import Entry, IndexedSource, SkipCounter
from synth2_lightning.sources.image_files import is_system_file


class TableSource(IndexedSource):
    """Image source of a table with one caption per row and a folder of images; the key is the file name in the table.

    Rows with the same file name are captions of one image.

    Args:
        table: Path or URL of a ``.csv`` or ``.tsv`` with a header line, a ``.jsonl`` with one object per line, or a
            ``.parquet`` file.
        images: Folder that the file names are relative to.
        file_column: Column of the file names.
        caption_column: Column of the captions.
        name: Short name for logs.
        limit: Maximum number of images, from the first; ``None`` keeps all.
        delimiter: Field delimiter of a ``.csv`` or ``.tsv`` table; ``None`` is the usual one of its suffix.

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

    @cached_property
    def _paths(self) -> tuple[Path, Path]:
        return (
            resolve(self.table, f"table of source {self.name!r}"),
            resolve(self.images, f"images folder of source {self.name!r}"),
        )

    def list_files(self) -> list[Path]:
        """Return the table."""
        return [self._paths[0]]

    def read_index(self, skipped: SkipCounter) -> Iterator[Entry]:
        """Yield the images, with the captions of all rows of a file name.

        Raises:
            FileNotFoundError: If the table or the folder does not exist.
            ValueError: If the suffix is not supported, a column is missing, or a value is not a string.
        """
        path, folder = self._paths
        captions: dict[str, list[str]] = {}
        columns = (self.file_column, self.caption_column)
        for number, row in enumerate(read_rows(path, columns, self.delimiter), start=1):
            where = f"{path}, record {number},"
            file_name = take_text(row[self.file_column], where, self.file_column).strip()
            if not file_name:
                skipped.add("records without a file name", f"record {number}")
            elif is_system_file(PurePath(file_name)):
                skipped.add("records of metadata files of macOS or Windows", f"record {number}, {file_name}")
            else:
                caption = take_text(row[self.caption_column], where, self.caption_column)
                captions.setdefault(file_name, []).append(caption)
        for file_name, texts in captions.items():
            yield Entry(file_name, texts, str(folder / file_name))
