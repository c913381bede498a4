"""Reading and writing of Parquet files with page checksums."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from synth2_lightning.io.messages import one_line
from synth2_lightning.io.paths import require_file

MAX_GROUP_BYTES = 4 * 2**30
"""Maximum uncompressed size of a row group, as the file states it; otherwise a small file could fill the memory."""

ROWS_OF_A_GROUP = 65_536
"""Small enough that many readers can share a file."""

_WRITER_OPTIONS = {"compression": "zstd", "write_page_checksum": True}


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a compressed table with a checksum (CRC-32) per page."""
    pq.write_table(table, path, row_group_size=ROWS_OF_A_GROUP, **_WRITER_OPTIONS)


def write_tables(tables: Iterator[pa.Table], path: Path) -> int:
    """Write one or more tables with equal columns to one file, as :func:`write_parquet` does.

    Returns:
        The number of rows.
    """
    first = next(tables)
    num_rows = 0
    with pq.ParquetWriter(path, first.schema, **_WRITER_OPTIONS) as writer:
        for table in chain([first], tables):
            num_rows += len(table)
            if len(table):
                writer.write_table(table, row_group_size=ROWS_OF_A_GROUP)
    return num_rows


def read_parquet(path: Path, columns: Sequence[str] | None = None, advice: str = "") -> pa.Table:
    """Read a table, or some of its columns.

    Arguments and errors are those of :func:`open_parquet`.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_parquet(pa.table({"caption": ["a dog"]}), Path(folder) / "captions.parquet")
        ...     read_parquet(Path(folder) / "captions.parquet")["caption"].to_pylist()
        ['a dog']
    """
    with open_parquet(path, advice) as file:
        schema = file.schema_arrow
        fields = [schema.field(name) for name in columns or schema.names]
        return pa.Table.from_batches(list(read_batches(file, columns)), pa.schema(fields, schema.metadata))


def read_batches(
    file: pq.ParquetFile, columns: Sequence[str] | None = None, row_group: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the validated rows of an open file.

    Args:
        file: The open file.
        columns: Names; all columns if ``None``.
        row_group: Index of the only row group to read.

    Raises:
        ValueError: If the values do not match the schema, or the number of rows does not match the metadata.
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
        raise pa.ArrowInvalid(f"it contains {num_rows} rows; expected {num_expected}, as in its metadata")


@contextmanager
def open_parquet(path: Path, advice: str = "") -> Iterator[pq.ParquetFile]:
    """Open a file, and add its path to errors of Arrow inside the context.

    Args:
        path: The file.
        advice: How to replace a damaged file, for the message.

    Raises:
        OSError: If the file cannot be read, or is a folder, a pipe or a device.
        ValueError: If it is not a Parquet file, damaged, or too large when uncompressed.
    """
    require_file(path)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_group_sizes(file.metadata)
            yield file
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # Arrow's OSErrors for damage have no errno
            raise
        reason = one_line(error) or type(error).__name__
        raise ValueError(
            f"{path} is not a readable Parquet file ({reason}). {advice or 'Expected an intact one: copy it again.'}"
        ) from error


def _check_group_sizes(metadata: pq.FileMetaData) -> None:
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if not 0 <= group.total_byte_size <= MAX_GROUP_BYTES or group.num_rows < 0:
            raise pa.ArrowInvalid(
                f"its row group {number} has {group.total_byte_size} bytes uncompressed; expected at most "
                f"{MAX_GROUP_BYTES}; if you trust the file, write it again with smaller row groups"
            )
