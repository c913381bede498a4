"""Read the rows of a table: CSV and TSV with a header line, JSON Lines, Parquet."""

import csv
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_rows(path: Path, columns: Collection[str]) -> Iterator[dict[str, Any]]:
    """Go through the rows of a table; its kind is read off the suffix.

    Args:
        path: ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``.
        columns: What every row must have. A row may bring more, but of Parquet no other column is read.

    Raises:
        ValueError: If the table is of another kind, damaged, or lacks a column.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        yield from _read_parquet(path, columns)
        return
    if suffix not in {*_DELIMITERS, ".jsonl"}:
        raise ValueError(
            f"{path} is no table that can be read; expected a name that ends in .csv, .tsv, .jsonl or .parquet."
        )
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows: Iterator[dict[str, Any]]
        if suffix == ".jsonl":
            rows = (_read_line(line, f"{path}, line {number},") for number, line in enumerate(file, start=1))
        else:
            rows = csv.DictReader(file, delimiter=_DELIMITERS[suffix])
        for number, row in enumerate(rows, start=1):
            _check_columns(f"{path}, record {number},", columns, row.keys())
            yield row


def _read_parquet(path: Path, columns: Collection[str]) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as table:
            _check_columns(str(path), columns, table.schema_arrow.names)
            for batch in table.iter_batches(columns=list(columns)):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no readable Parquet file ({error}); expected one, or another suffix.") from error


def _read_line(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is no valid JSON ({error}); expected one object per line.") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} holds {row!r}; expected one object per line.")
    return row


def _check_columns(where: str, columns: Collection[str], present: Collection[str]) -> None:
    if missing := set(columns) - set(present):
        raise ValueError(
            f"{where} has no column {sorted(missing)}; it has {sorted(map(str, present))}. Name the columns that the "
            "table has."
        )
