"""Read the rows of a table (CSV and TSV with a header line, JSON Lines, Parquet), and the lines of a text."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from synth2_lightning.io.delimited import iterate_lines, read_fields
from synth2_lightning.io.json_text import parse_json
from synth2_lightning.io.parquet import open_parquet, read_batches

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_rows(path: Path, columns: Collection[str], delimiter: str | None = None) -> Iterator[dict[str, Any]]:
    r"""Go through the rows of a table; its kind is read off the suffix. Blank lines are no rows.

    Tables as the web has them disagree about quotation marks. Where fields are divided by a comma or a semicolon, which
    captions hold, a field that begins with one must end with one, doubled ones inside; it may go over several lines.
    Where each of those lines could also be a row of its own, the row is refused: nobody can say which was meant. Where
    fields are divided by anything else, such as the tabulator of TSV, a quotation mark is part of the text unless
    marks enclose a whole field, and no field goes over several lines.

    Args:
        path: ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``; of any other name where there is a delimiter.
        columns: What every row must have. A row may bring more, but of Parquet no other column is read.
        delimiter: One character between fields, where it is not what the suffix says: a comma in ``.csv``, a tabulator
            in ``.tsv``.

    Raises:
        ValueError: If the table is of another kind, damaged, or lacks a column, if a row has more fields than the
            header or may be read in two ways, or the delimiter is not one character.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "captions.tsv"
        ...     _ = path.write_text('caption\tfile\n"red dress on a woman\t1.jpg\na dog says "woof"\t2.jpg\n')
        ...     [row["caption"] for row in read_rows(path, ["caption"])]
        ['"red dress on a woman', 'a dog says "woof"']
    """
    suffix = path.suffix.lower()
    if delimiter is not None and (suffix in {".jsonl", ".parquet"} or len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(
            f"{path} cannot be divided by the delimiter {delimiter!r}; expected one character, such as '|', and a "
            "table that is neither JSON Lines nor Parquet."
        )
    if suffix == ".parquet":
        with open_parquet(path, "Expected a whole one, or another suffix.") as table:
            check_columns(str(path), columns, table.schema_arrow.names)
            for batch in read_batches(table, list(columns)):
                yield from batch.to_pylist()
        return
    if suffix not in {*_DELIMITERS, ".jsonl"} and delimiter is None:
        raise ValueError(
            f"{path} is no table that can be read; expected a name that ends in .csv, .tsv, .jsonl or .parquet."
        )
    rows = _read_objects(path) if suffix == ".jsonl" else read_fields(path, delimiter or _DELIMITERS[suffix])
    for number, row in enumerate(rows, start=1):
        check_columns(f"{path}, record {number},", columns, row.keys())
        yield row


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text without their ends; only line feeds and carriage returns end a line.

    Raises:
        ValueError: If it is not in UTF-8, nor in UTF-16 or UTF-32 with their mark, or a line is absurdly long.
    """
    return [line.rstrip("\r\n") for line in iterate_lines(path)]


def take_text(value: Any, where: str, column: str) -> str:
    """Return a value that must be a text; empty where there is none.

    Args:
        value: What a table or an index holds.
        where: The file and the row, for the message.
        column: The name of the field.

    Raises:
        ValueError: If it is a record, a list, a number or anything else.

    Example:
        >>> take_text("a dog", "t.jsonl, record 1,", "caption")
        'a dog'
        >>> take_text(["a dog"], "t.jsonl, record 1,", "caption")
        Traceback (most recent call last):
        ValueError: t.jsonl, record 1, holds ['a dog'] under 'caption'; expected one text. Make a row of each text.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    match value:
        case dict():
            way = f"Make a column of the texts that are among the fields {list(value)}."
        case list() | tuple():
            way = "Make a row of each text."
        case _:
            way = f"It is of the type {type(value).__name__}: name the column of the texts, or write it as a text."
    raise ValueError(f"{where} holds {value!r:.80} under {column!r}; expected one text. {way}")


def take_key(value: Any, where: str, column: str) -> str:
    """Return a value that must be a text or a whole number, as a text; arguments as of :func:`take_text`.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> take_key(7, "captions.jsonl, record 1,", "id")
        '7'
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
                f"{path}, line {number}, is no valid JSON ({error}); expected one object per line."
            ) from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}, holds {row!r:.80}; expected one object per line.")
        yield row


def check_columns(where: str, columns: Collection[str], present: Collection[str]) -> None:
    """Refuse a table that lacks a column.

    Raises:
        ValueError: If it does.
    """
    if missing := set(columns) - set(present):
        raise ValueError(
            f"{where} has no column {sorted(missing)}; it has {sorted(map(str, present))}. Name the columns that the "
            "table has, or its delimiter."
        )
