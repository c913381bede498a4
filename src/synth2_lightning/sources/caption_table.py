"""Captions to synthesise from, in a table: CSV, TSV, JSON Lines or Parquet."""

from collections.abc import Iterator

from synth2_lightning.locations import resolve
from synth2_lightning.sources.captions import IndexedCaptions
from synth2_lightning.tables import read_rows, take_key, take_text
from synth2_lightning.types import CaptionRecord


class CaptionTable(IndexedCaptions):
    """One caption per row of a table; its kind is read off the suffix (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``).

    Args:
        table: The table.
        caption_column: Column of the captions.
        key_column: Column of the keys; where left out, the key is the table's name without suffix and the number of
            the row, from 1. Such keys hold as long as rows are only added at the end.
        class_column: Column of the class names that the captions were written for, where there is one.
        name: What logs and shards call the captions.
        max_empty_captions: How many empty captions are left out, with a warning that names them, before it is an error.
        limit: Keep the first captions only.
        delimiter: The character between the fields of a ``.csv`` or ``.tsv`` table, where it is another than usual.

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
        self.delimiter = delimiter

    def read_captions(self) -> Iterator[CaptionRecord]:
        """Go through the rows.

        Raises:
            FileNotFoundError: If the table does not exist.
            ValueError: If it is of another kind, lacks a column, or a row lacks its key or holds no text.
        """
        path = resolve(self.table, f"table of captions {self.name!r}")
        columns = [name for name in (self.caption_column, self.key_column, self.class_column) if name is not None]
        for number, row in enumerate(read_rows(path, columns, self.delimiter), start=1):
            where = f"{path}, record {number},"
            key = f"{path.stem}-{number:06d}"
            if self.key_column is not None:
                key = take_key(row[self.key_column], where, self.key_column)
                if not key:
                    raise ValueError(
                        f"{where} has no key under {self.key_column!r}; expected one in every row. Fill it in, or "
                        "leave key_column out to number the rows."
                    )
            class_name = take_key(row[self.class_column], where, self.class_column) if self.class_column else ""
            yield CaptionRecord(key, take_text(row[self.caption_column], where, self.caption_column), class_name)
