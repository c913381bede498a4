"""Streaming selection of rows of a caption set, in their order."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from synth2_lightning.io.atomic import write_atomically
from synth2_lightning.io.parquet import write_tables
from synth2_lightning.metrics.ngrams import Ints
from synth2_lightning.reports.partitions import Partition, list_captions
from synth2_lightning.sources.caption_files import CAPTION_SET_TABLE

_RowsOfPartition = tuple[Partition, Ints]


def take_rows(part: _RowsOfPartition) -> pa.Table:
    """Return the given rows of a partition.

    Example:
        >>> from synth2_lightning.reports.partitions import TablePartition
        >>> rows = TablePartition(pa.table({"caption": ["a fox", "a dog", "an owl"]}), first_row=10)
        >>> take_rows((rows, np.array([10, 12])))["caption"].to_pylist()
        ['a fox', 'an owl']
    """
    partition, rows = part
    if not len(rows):
        _, table = next(partition.read())
        return table.slice(0, 0)
    return _filter(partition, rows, keep=True)


def drop_rows(part: _RowsOfPartition) -> pa.Table:
    """Return the rows of a partition without the given ones and those with blank captions.

    Example:
        >>> from synth2_lightning.reports.partitions import TablePartition
        >>> rows = TablePartition(pa.table({"caption": ["a fox", "", "an owl"]}))
        >>> drop_rows((rows, np.array([0])))["caption"].to_pylist()
        ['an owl']
    """
    partition, rows = part
    return _filter(partition, rows, keep=False)


def _filter(partition: Partition, rows: Ints, keep: bool) -> pa.Table:
    tables = []
    for first, table in partition.read():
        is_listed = np.isin(np.arange(first, first + len(table)), rows)
        is_filled = np.asarray([caption != "" for caption in list_captions(table)], bool)
        tables.append(table.filter(pa.array(is_listed if keep else is_filled & ~is_listed)))
    return pa.concat_tables(tables)


def write_rows(tables: Iterator[pa.Table], path: Path) -> int:
    """Write tables of equal columns to one Parquet file atomically.

    Returns:
        The number of rows.

    Raises:
        OSError: If the folder cannot be written to.
    """
    num_rows = 0

    def write(draft: Path) -> None:
        nonlocal num_rows
        num_rows = write_tables(tables, draft)

    write_atomically(path, write)
    return num_rows


def split_rows(partitions: Sequence[Partition], rows: Ints) -> list[_RowsOfPartition]:
    """Return each partition with those of the rows that it contains.

    Args:
        partitions: Partitions in row order.
        rows: Sorted row numbers.

    Example:
        >>> from synth2_lightning.reports.partitions import TablePartition
        >>> two = [TablePartition(pa.table({"caption": ["a", "b"]}), first) for first in (0, 2)]
        >>> [rows.tolist() for _, rows in split_rows(two, np.array([1, 2, 3]))]
        [[1], [2, 3]]
    """
    firsts = np.asarray([partition.first_row for partition in partitions], np.int64)
    return list(zip(partitions, np.split(rows, np.searchsorted(rows, firsts[1:])), strict=True))


def check_no_caption_set(folder: Path) -> None:
    """Check that a folder has no caption set, which would be overwritten.

    Raises:
        FileExistsError: If the folder contains a caption set.
    """
    if (folder / CAPTION_SET_TABLE).exists():
        raise FileExistsError(
            f"{folder} already contains a caption set; expected a folder without one. Choose another folder."
        )
