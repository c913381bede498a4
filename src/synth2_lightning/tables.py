"""Read the rows of a table: CSV and TSV with a header line, JSON Lines, Parquet; and the lines of a text."""

import csv
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from synth2_lightning.files import require_file
from synth2_lightning.jsontext import parse_json
from synth2_lightning.parquet import open_parquet, read_batches

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_MAX_LINE = 16 * 2**20


def read_rows(path: Path, columns: Collection[str]) -> Iterator[dict[str, Any]]:
    """Go through the rows of a table; its kind is read off the suffix.

    Args:
        path: ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``.
        columns: What every row must have. A row may bring more, but of Parquet no other column is read.

    Raises:
        ValueError: If the table is of another kind, damaged, or lacks a column, or a row has more fields than the
            header.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with open_parquet(path, "Expected a whole one, or another suffix.") as table:
            _check_columns(str(path), columns, table.schema_arrow.names)
            for batch in read_batches(table, list(columns)):
                yield from batch.to_pylist()
        return
    if suffix not in {*_DELIMITERS, ".jsonl"}:
        raise ValueError(
            f"{path} is no table that can be read; expected a name that ends in .csv, .tsv, .jsonl or .parquet."
        )
    rows = _read_objects(path) if suffix == ".jsonl" else _read_fields(path, _DELIMITERS[suffix])
    for number, row in enumerate(rows, start=1):
        _check_columns(f"{path}, record {number},", columns, row.keys())
        yield row


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text in UTF-8, without their ends.

    Raises:
        ValueError: If it is in another encoding, or a line is absurdly long.
    """
    return [line for text in _read_lines(path) for line in text.splitlines()]


def _read_lines(path: Path) -> Iterator[str]:
    with require_file(path).open(encoding="utf-8-sig", newline="") as file:
        number = 0
        try:
            while line := file.readline(_MAX_LINE):
                number += 1
                if len(line) == _MAX_LINE:
                    raise ValueError(
                        f"{path}, line {number}, has {_MAX_LINE} letters or more; expected shorter ones, such as "
                        "captions have. Is it a file of another kind?"
                    )
                yield line
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} is not in UTF-8 after line {number} ({error.reason}). Expected UTF-8: convert it, such as by "
                "`iconv -f latin1 -t utf-8`."
            ) from error


def _read_objects(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_read_lines(path), start=1):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}, is no valid JSON ({error}); expected one object per line."
            ) from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}, holds {row!r:.80}; expected one object per line.")
        yield row


def _read_fields(path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    rows = csv.DictReader(_read_lines(path), delimiter=delimiter, strict=True)
    try:
        for number, row in enumerate(rows, start=1):
            if None in row:
                raise ValueError(
                    f"{path}, record {number}, has {len(row) - 1 + len(row[None])} fields, the header "
                    f"{len(row) - 1}; what does not fit would be lost. Put captions that hold {delimiter!r} in quotes."
                )
            yield row
    except csv.Error as error:
        raise ValueError(
            f"{path} cannot be read as a table after line {rows.line_num} ({error}); expected fields between "
            f"{delimiter!r}, quotes closed."
        ) from error


def _check_columns(where: str, columns: Collection[str], present: Collection[str]) -> None:
    if missing := set(columns) - set(present):
        raise ValueError(
            f"{where} has no column {sorted(missing)}; it has {sorted(map(str, present))}. Name the columns that the "
            "table has."
        )
