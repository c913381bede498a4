"""Captions in a table: CSV, TSV, JSON Lines or Parquet."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from synth2_lightning.io.locations import resolve
from synth2_lightning.io.tables import read_rows, take_key, take_text
from synth2_lightning.sources.captions import IndexedCaptions
from synth2_lightning.types import CaptionRecord


class CaptionTable(IndexedCaptions):
    """Caption source with one caption per row of a table.

    Args:
        table: Path or URL of a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file.
        caption_column: Column of the captions.
        key_column: Column of the keys. ``None`` makes keys from the table's name without suffix and the row number,
            from 1; these keys are stable only while new rows are appended at the end.
        class_column: Column of the class names that the captions were written for; ``None`` if there is none.
        image_id_column: Column of the ids of the images that the captions describe; ``None`` if there is none.
        name: Name of the source in logs and shards.
        max_empty_captions: Number of empty captions that are skipped with a warning; more are an error.
        limit: Maximum number of captions, from the first; ``None`` keeps all.
        delimiter: Field delimiter of a ``.csv`` or ``.tsv`` table; ``None`` is the usual one of its suffix.

    Example:
        >>> CaptionTable("captions.parquet", class_column="class_name", limit=1000).name
        'synthetic'
    """

    def __init__(
        self,
        table: str,
        caption_column: str = "caption",
        key_column: str | None = None,
        class_column: str | None = None,
        image_id_column: str | None = None,
        name: str = "synthetic",
        max_empty_captions: int = 10,
        limit: int | None = None,
        delimiter: str | None = None,
    ) -> None:
        super().__init__(name, max_empty_captions, limit)
        self.table = table
        self.caption_column = caption_column
        self.key_column = key_column
        self.class_column = class_column
        self.image_id_column = image_id_column
        self.delimiter = delimiter

    @cached_property
    def _path(self) -> Path:
        return resolve(self.table, f"table of captions {self.name!r}")

    def list_files(self) -> list[Path]:
        """Return the table."""
        return [self._path]

    def read_captions(self) -> Iterator[CaptionRecord]:
        """Yield the captions row by row.

        Raises:
            FileNotFoundError: If the table does not exist.
            ValueError: If the suffix is not supported, a column or a key is missing, or a caption is not a string.
        """
        path = self._path
        named = (self.caption_column, self.key_column, self.class_column, self.image_id_column)
        columns = [name for name in named if name is not None]
        for number, row in enumerate(read_rows(path, columns, self.delimiter), start=1):
            where = f"{path}, record {number},"
            key = f"{path.stem}-{number:06d}"
            if self.key_column is not None:
                key = take_key(row[self.key_column], where, self.key_column)
                if not key:
                    raise ValueError(
                        f"{where} has no key under {self.key_column!r}; expected one in every row. Add it, or omit "
                        "key_column to number the rows."
                    )
            class_name = take_key(row[self.class_column], where, self.class_column) if self.class_column else ""
            image_id = take_key(row[self.image_id_column], where, self.image_id_column) if self.image_id_column else ""
            caption = take_text(row[self.caption_column], where, self.caption_column)
            yield CaptionRecord(key, caption, class_name, image_id=image_id)
