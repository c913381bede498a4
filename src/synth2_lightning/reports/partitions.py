"""Partitions of a caption set, which are read one at a time to limit memory."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from synth2_lightning.io.parquet import ROWS_OF_A_GROUP, open_parquet, read_batches
from synth2_lightning.sources.caption_files import check_caption_column, find_caption_file, read_caption_rows

MAX_CHARACTERS = 2000
"""Length to which captions are truncated for statistics and embeddings; selected rows keep the full captions."""
_BATCH_ROWS = 8192
_WAY_OUT = "Expected a complete file, the same on every machine that reads it."


class Partition(ABC):
    """Consecutive rows of a caption set.

    Attributes:
        first_row: Number of the first row in the set.
        num_rows: Number of rows, including blank captions.
    """

    first_row: int
    num_rows: int

    @abstractmethod
    def read(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Yield the rows in batches of some thousands; the batches are always the same.

        Args:
            columns: Columns to read; missing ones are ignored. All by default.

        Yields:
            The number of the first row, and a batch of rows.
        """


@dataclass(slots=True, eq=False)
class TablePartition(Partition):
    """Rows in memory.

    Example:
        >>> [(first, len(rows)) for first, rows in TablePartition(pa.table({"caption": ["a fox", ""]})).read()]
        [(0, 2)]
    """

    table: pa.Table
    first_row: int = 0
    num_rows: int = field(init=False)

    def __post_init__(self) -> None:
        """Count the rows."""
        self.num_rows = len(self.table)

    def read(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Slice the rows."""
        table = self.table if columns is None else self.table.select(_intersect(columns, self.table.column_names))
        for start in range(0, self.num_rows, _BATCH_ROWS):
            yield self.first_row + start, table.slice(start, _BATCH_ROWS)


@dataclass(frozen=True, slots=True, eq=False)
class ParquetPartition(Partition):
    """Row group of a Parquet file, which is available at the same path to all processes."""

    path: Path
    row_group: int
    first_row: int
    num_rows: int

    def read(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Read the rows.

        Raises:
            OSError: If the file does not exist.
            ValueError: If the file is damaged.
        """
        first = self.first_row
        with open_parquet(self.path, _WAY_OUT) as file:
            names = None if columns is None else _intersect(columns, file.schema_arrow.names)
            for batch in read_batches(file, names, self.row_group):
                yield first, pa.Table.from_batches([batch])
                first += len(batch)


def list_partitions(path: Path) -> list[Partition]:
    """Return the partitions of a caption file: row groups of Parquet, or slices of other files, which are read.

    Args:
        path: File or folder in a format of :func:`read_caption_rows`.

    Raises:
        FileNotFoundError: If the path is a folder without ``captions.parquet``.
        ValueError: If the file is damaged, or a caption is not a string.
    """
    path = find_caption_file(path).absolute()  # reading processes may have another working directory
    if path.suffix.lower() != ".parquet":
        rows = read_caption_rows(path)
        starts = range(0, len(rows), ROWS_OF_A_GROUP)
        return [TablePartition(rows.slice(start, ROWS_OF_A_GROUP), start) for start in starts]
    with open_parquet(path, _WAY_OUT) as file:
        schema, footer = file.schema_arrow, file.metadata
    check_caption_column(schema, path)
    partitions: list[Partition] = []
    first = 0
    for number in range(footer.num_row_groups):
        num_rows = footer.row_group(number).num_rows
        if num_rows:
            partitions.append(ParquetPartition(path, number, first, num_rows))
        first += num_rows
    return partitions


def list_captions(rows: pa.Table) -> list[str]:
    """Return the stripped caption of each row; empty if it is blank.

    Example:
        >>> list_captions(pa.table({"caption": [" a fox ", None]}))
        ['a fox', '']
    """
    return [(caption or "").strip() for caption in rows["caption"].to_pylist()]


def truncate_captions(rows: pa.Table) -> list[str]:
    """Return the captions truncated to ``MAX_CHARACTERS``, which limits the time for pages of text among captions."""
    return [caption[:MAX_CHARACTERS].rstrip() for caption in list_captions(rows)]


def list_class_names(rows: pa.Table) -> list[str]:
    """Return the class name of each caption; empty if unknown.

    Example:
        >>> list_class_names(pa.table({"caption": ["a fox", "a dog"], "class_name": ["fox", None]}))
        ['fox', '']
    """
    if "class_name" not in rows.column_names:
        return [""] * len(rows)
    return [str(name or "") for name in rows["class_name"].to_pylist()]


def _intersect(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    return [name for name in columns if name in names]
