"""Parquet files: written with a checksum for every page, and read with it, or refused by name."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MAX_GROUP_BYTES = 4 * 2**30
"""Most bytes that a row group may have once it is unpacked: a small file may else fill the memory."""


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table, compressed, every page with its checksum (CRC-32)."""
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


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


def read_batches(file: pq.ParquetFile, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Go through the rows of an open file, and see that they are as many as it says, and texts where it says so.

    Raises:
        ValueError: If not.
    """
    num_rows = 0
    for batch in file.iter_batches(batch_size=8192, columns=None if columns is None else list(columns)):
        batch.validate(full=True)
        num_rows += len(batch)
        yield batch
    if num_rows != file.metadata.num_rows:
        raise pa.ArrowInvalid(f"it holds {num_rows} rows and says that it has {file.metadata.num_rows}")


@contextmanager
def open_parquet(path: Path, way_out: str = "") -> Iterator[pq.ParquetFile]:
    """Open a file, and name it in whatever Arrow says of it while the context lasts.

    Args:
        path: The file.
        way_out: What to do where it is damaged, for the message.

    Raises:
        OSError: If the disk does not give it.
        ValueError: If it is no Parquet file, damaged, or unpacks to absurd sizes.
    """
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
