"""Reading of tables (CSV and TSV with a header line, JSON Lines, Parquet) and text files."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from synth2_lightning.io.delimited import iterate_lines, read_fields
from synth2_lightning.io.json_text import parse_json
from synth2_lightning.io.messages import name_first
from synth2_lightning.io.parquet import open_parquet, read_batches

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SUFFIXES = {*_DELIMITERS, ".jsonl", ".parquet"}


def read_rows(path: Path, columns: Collection[str], delimiter: str | None = None) -> Iterator[dict[str, Any]]:
    r"""Yield the rows of a table; the suffix determines the format. Blank lines are ignored.

    Quoting depends on the delimiter. With a comma or a semicolon, which are frequent in captions, a field that starts
    with a quotation mark must end with one, with doubled ones inside, and may span several lines; if each of those
    lines could also be a row, the row is ambiguous and an error. With any other delimiter, such as the tab of TSV, a
    quotation mark is part of the text unless a pair encloses the entire field, and no field spans several lines.

    Args:
        path: ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``; any other name if there is a delimiter.
        columns: Required columns. Other columns are kept, except in Parquet.
        delimiter: One character between fields; by default a comma in ``.csv``, and a tab in ``.tsv``.

    Raises:
        ValueError: If the path is a folder, the format is unknown, the table is damaged or lacks a column, a row is
            ambiguous or has more fields than the header, or the delimiter is not one character.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "captions.tsv"
        ...     _ = path.write_text('caption\tfile\n"red dress on a woman\t1.jpg\na dog says "woof"\t2.jpg\n')
        ...     [row["caption"] for row in read_rows(path, ["caption"])]
        ['"red dress on a woman', 'a dog says "woof"']
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        tables = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
        inside = f", such as {name_first(tables)}" if tables else ""
        raise ValueError(f"{path} is a folder; expected a table{inside}.")
    if delimiter is not None and (suffix in {".jsonl", ".parquet"} or len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(
            f"{path} cannot be split by the delimiter {delimiter!r}; expected one character, such as '|', and a "
            "table that is neither JSON Lines nor Parquet."
        )
    if suffix == ".parquet":
        with open_parquet(path, "Expected an intact one, or another suffix.") as table:
            check_columns(str(path), columns, table.schema_arrow.names)
            for batch in read_batches(table, list(columns)):
                yield from batch.to_pylist()
        return
    if suffix not in {*_DELIMITERS, ".jsonl"} and delimiter is None:
        raise ValueError(
            f"{path} is not a table of a known format; expected a name that ends in .csv, .tsv, .jsonl or .parquet."
        )
    rows = _read_objects(path) if suffix == ".jsonl" else read_fields(path, delimiter or _DELIMITERS[suffix])
    for number, row in enumerate(rows, start=1):
        check_columns(f"{path}, record {number},", columns, row.keys())
        yield row


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file without their ends; only line feeds and carriage returns end a line.

    Raises:
        ValueError: If it is neither UTF-8 nor UTF-16 or UTF-32 with a byte order mark, or a line is too long.
    """
    return [line.rstrip("\r\n") for line in iterate_lines(path)]


def take_text(value: object, where: str, column: str) -> str:
    """Return a string from a table or an index; empty for ``None``.

    Raises:
        ValueError: If the value is not a string; the message names file and row (``where``), and the column.

    Example:
        >>> take_text(["a dog"], "t.jsonl, record 1,", "caption")
        Traceback (most recent call last):
        ValueError: t.jsonl, record 1, has ['a dog'] in 'caption'; expected one string. Write one row per string.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    match value:
        case dict():
            fix = f"Write one of the fields {list(value)} as a column."
        case list() | tuple():
            fix = "Write one row per string."
        case _:
            fix = f"It is of the type {type(value).__name__}: choose another column, or write it as a string."
    raise ValueError(f"{where} has {value!r:.80} in {column!r}; expected one string. {fix}")


def take_key(value: object, where: str, column: str) -> str:
    """Return a string or an integer as a string, like :func:`take_text`.

    Raises:
        ValueError: If the value is anything else.
    """
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number else take_text(value, where, column).strip()


def _read_objects(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(iterate_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}, is not valid JSON ({error}); expected one object per line."
            ) from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}, has {row!r:.80}; expected one object per line.")
        yield row


def check_columns(where: str, columns: Collection[str], present: Collection[str]) -> None:
    """Raise if columns are missing.

    Raises:
        ValueError: If a column is missing.
    """
    if missing := set(columns) - set(present):
        raise ValueError(
            f"{where} has no column {sorted(missing)}; expected names among {sorted(map(str, present))}. Set the names "
            "of the columns, or the delimiter."
        )
