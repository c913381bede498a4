"""Write some rows of a caption set, in their order, without holding them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from synth2_lightning.files import write_atomically
from synth2_lightning.metrics.ngrams import Ints
from synth2_lightning.parquet import write_tables
from synth2_lightning.reports.partitions import Partition, list_captions
from synth2_lightning.sources.caption_files import CAPTION_SET_TABLE

_PartOfPartition = tuple[Partition, Ints]


def take_rows(part: _PartOfPartition) -> pa.Table:
    """Give the listed rows of a partition.

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
    return _filter(partition, rows, is_wanted=True)


def leave_rows_out(part: _PartOfPartition) -> pa.Table:
    """Give all rows of a partition but the listed ones and those whose caption is blank.

    Example:
        >>> from synth2_lightning.reports.partitions import TablePartition
        >>> rows = TablePartition(pa.table({"caption": ["a fox", "", "an owl"]}))
        >>> leave_rows_out((rows, np.array([0])))["caption"].to_pylist()
        ['an owl']
    """
    partition, rows = part
    return _filter(partition, rows, is_wanted=False)


def _filter(partition: Partition, rows: Ints, is_wanted: bool) -> pa.Table:
    tables = []
    for first, table in partition.read():
        is_listed = np.isin(np.arange(first, first + len(table)), rows)
        is_filled = np.asarray([caption != "" for caption in list_captions(table)], bool)
        tables.append(table.filter(pa.array(is_listed if is_wanted else is_filled & ~is_listed)))
    return pa.concat_tables(tables)


def write_rows(tables: Iterator[pa.Table], path: Path) -> int:
    """Write tables of the same columns as one Parquet file, whole or not at all.

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


def part_rows(partitions: Sequence[Partition], rows: Ints) -> list[_PartOfPartition]:
    """Give each partition those of the rows that are in it.

    Args:
        partitions: In their order.
        rows: Ascending.

    Example:
        >>> from synth2_lightning.reports.partitions import TablePartition
        >>> two = [TablePartition(pa.table({"caption": ["a", "b"]}), first) for first in (0, 2)]
        >>> [rows.tolist() for _, rows in part_rows(two, np.array([1, 2, 3]))]
        [[1], [2, 3]]
    """
    firsts = np.asarray([partition.first_row for partition in partitions], np.int64)
    return list(zip(partitions, np.split(rows, np.searchsorted(rows, firsts[1:])), strict=True))


def refuse_taken(folder: Path) -> None:
    """Refuse a folder that holds a caption set, lest it be lost; asked before minutes are spent on its captions.

    Raises:
        FileExistsError: If the folder holds a caption set already.
    """
    if (folder / CAPTION_SET_TABLE).exists():
        raise FileExistsError(f"{folder} holds a caption set already; expected a folder without one. Choose another.")
