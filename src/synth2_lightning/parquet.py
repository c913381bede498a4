"""Parquet files: written with a checksum for every page, and read with it, or refused by name."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from synth2_lightning.files import require_file

MAX_GROUP_BYTES = 4 * 2**30
"""Most bytes that a row group may have once it is unpacked: a small file may else fill the memory."""

ROWS_OF_A_GROUP = 65_536
"""Few enough that many readers can share a file."""

_HOW = {"compression": "zstd", "write_page_checksum": True}


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table, compressed, every page with its checksum (CRC-32)."""
    pq.write_table(table, path, row_group_size=ROWS_OF_A_GROUP, **_HOW)


def write_tables(tables: Iterator[pa.Table], path: Path) -> int:
    """Write tables of the same columns, at least one, one after the other, as :func:`write_parquet` does.

    Returns:
        The number of rows.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_tables(iter([pa.table({"caption": ["a dog"]})] * 2), Path(folder) / "captions.parquet")
        2
    """
    first = next(tables)
    num_rows = 0
    with pq.ParquetWriter(path, first.schema, **_HOW) as writer:
        for table in chain([first], tables):
            num_rows += len(table)
            if len(table):
                writer.write_table(table, row_group_size=ROWS_OF_A_GROUP)
    return num_rows


def read_parquet(path: Path, columns: Sequence[str] | None = None, way_out: str = "") -> pa.Table:
    """Read a table, all of it or some columns.

    Args:
        path: The file.
        columns: Names; all columns if ``None``.
        way_out: What to do where it is damaged, for the message.

    Raises:
        OSError: If the disk does not give it.
        ValueError: If it is no Parquet file, damaged, or unpacks to absurd sizes.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_parquet(pa.table({"caption": ["a dog"]}), Path(folder) / "captions.parquet")
        ...     read_parquet(Path(folder) / "captions.parquet")["caption"].to_pylist()
        ['a dog']
    """
    with open_parquet(path, way_out) as file:
        return pa.Table.from_batches(
            list(read_batches(file, columns)), _choose(file.schema_arrow, columns or file.schema_arrow.names)
        )


def read_batches(
    file: pq.ParquetFile, columns: Sequence[str] | None = None, row_group: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Go through the rows of an open file, and see that they are as many as it says, and texts where it says so.

    Args:
        file: Open.
        columns: Names; all columns if ``None``.
        row_group: The rows of this one only; all rows if ``None``.

    Raises:
        ValueError: If not.
    """
    if row_group is None:
        groups, num_expected = None, file.metadata.num_rows
    else:
        groups, num_expected = [row_group], file.metadata.row_group(row_group).num_rows
    num_rows = 0
    for batch in file.iter_batches(8192, groups, None if columns is None else list(columns)):
        batch.validate(full=True)
        num_rows += len(batch)
        yield batch
    if num_rows != num_expected:
        raise pa.ArrowInvalid(f"it holds {num_rows} rows and says that it has {num_expected}")


@contextmanager
def open_parquet(path: Path, way_out: str = "") -> Iterator[pq.ParquetFile]:
    """Open a file, and name it in whatever Arrow says of it while the context lasts.

    Args:
        path: The file.
        way_out: What to do where it is damaged, for the message.

    Raises:
        OSError: If the disk does not give it, or it is a folder, a pipe or a device.
        ValueError: If it is no Parquet file, damaged, or unpacks to absurd sizes.
    """
    require_file(path)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _refuse_huge(file.metadata)
            yield file
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's own, not Arrow's word for damage
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"{path} is no readable Parquet file ({reason}). {way_out or 'Expected a whole one: copy it again.'}"
        ) from error


def _refuse_huge(metadata: pq.FileMetaData) -> None:
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if not 0 <= group.total_byte_size <= MAX_GROUP_BYTES or group.num_rows < 0:
            raise pa.ArrowInvalid(
                f"its row group {number} says that it unpacks to {group.total_byte_size} bytes, and more than "
                f"{MAX_GROUP_BYTES} are refused, because a small file may then fill the memory; write it anew in "
                "smaller groups if you trust it"
            )


def _choose(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in columns], schema.metadata)
