"""Parts of a caption set that are read one at a time, so that no process need hold the set."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from synth2_lightning.parquet import ROWS_OF_A_GROUP, open_parquet, read_batches
from synth2_lightning.sources.caption_files import check_caption_column, find_caption_file, read_caption_rows

NUM_MEASURED = 2000
"""Letters of a caption that reports and clusters go by; what lies behind them is kept, but not measured."""
_ROWS_AT_A_TIME = 8192
_WAY_OUT = "Expected a whole one, the same on every machine that reads it."


class Partition(ABC):
    """Some consecutive rows of a caption set.

    Attributes:
        first_row: Number of the first of them in the set.
        num_rows: How many there are, blank captions included.
    """

    first_row: int
    num_rows: int

    @abstractmethod
    def read(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Go through the rows, some thousands at a time, always the same ones together.

        Args:
            columns: What to read of those that there are; everything if ``None``.

        Yields:
            The number of the first row, and the rows.
        """


@dataclass(frozen=True, slots=True, eq=False)
class TablePartition(Partition):
    """Rows that are in memory.

    Example:
        >>> [(first, len(rows)) for first, rows in TablePartition(pa.table({"caption": ["a fox", ""]})).read()]
        [(0, 2)]
    """

    table: pa.Table
    first_row: int = 0

    @property
    def num_rows(self) -> int:  # type: ignore[override]
        """Number of rows."""
        return int(self.table.num_rows)

    def read(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Slice the rows."""
        table = self.table if columns is None else self.table.select(_intersect(columns, self.table.column_names))
        for start in range(0, self.num_rows, _ROWS_AT_A_TIME):
            yield self.first_row + start, table.slice(start, _ROWS_AT_A_TIME)


@dataclass(frozen=True, slots=True, eq=False)
class ParquetPartition(Partition):
    """A row group of a Parquet file, which every process that reads it must see at that path."""

    path: Path
    row_group: int
    first_row: int
    num_rows: int

    def read(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Read the rows.

        Raises:
            OSError: If the file is gone.
            ValueError: If it is damaged.
        """
        first = self.first_row
        with open_parquet(self.path, _WAY_OUT) as file:
            names = None if columns is None else _intersect(columns, file.schema_arrow.names)
            for batch in read_batches(file, names, self.row_group):
                yield first, pa.Table.from_batches([batch])
                first += len(batch)


def list_partitions(path: Path) -> list[Partition]:
    """Divide a file of captions: Parquet into its row groups, which are left where they are; others are read.

    Args:
        path: As :func:`read_caption_rows` takes it.

    Raises:
        FileNotFoundError: If it is a folder without ``captions.parquet``.
        ValueError: If the file is damaged, or a row has no caption that is a text.
    """
    path = find_caption_file(path).absolute()  # processes that read a partition may have another current folder
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
    """Give the caption of every row without the spaces around it; empty where it is blank.

    Example:
        >>> list_captions(pa.table({"caption": [" a fox ", None]}))
        ['a fox', '']
    """
    return [(caption or "").strip() for caption in rows["caption"].to_pylist()]


def list_beginnings(rows: pa.Table) -> list[str]:
    """Give of every caption what its words are counted in and its embedding is made of: the first letters.

    Without a limit, one page of text among the captions would take longer than all of them.

    Example:
        >>> [len(beginning) for beginning in list_beginnings(pa.table({"caption": ["a fox", "fo" * 10_000]}))]
        [5, 2000]
    """
    return [caption[:NUM_MEASURED].rstrip() for caption in list_captions(rows)]


def list_class_names(rows: pa.Table) -> list[str]:
    """Give what each caption was written for; empty where nobody said.

    Example:
        >>> list_class_names(pa.table({"caption": ["a fox", "a dog"], "class_name": ["fox", None]}))
        ['fox', '']
    """
    if "class_name" not in rows.column_names:
        return [""] * len(rows)
    return [str(name or "") for name in rows["class_name"].to_pylist()]


def _intersect(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    return [name for name in columns if name in names]
