"""Read the rows of a table: CSV and TSV with a header line, JSON Lines, Parquet; and the lines of a text."""

import csv
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from synth2_lightning.files import require_file
from synth2_lightning.jsontext import find_encoding, parse_json
from synth2_lightning.parquet import open_parquet, read_batches

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_DELIMITERS_IN_TEXT = ",;"
_MAX_LINE = 16 * 2**20
_MAX_FIELD = csv.field_size_limit()
_ENCLOSED = re.compile(r'"(?:[^"]|"")*"')
_MARK = "\ufeff"
_BLANK = " \r\n"  # a tabulator divides empty fields

_Record = tuple[int, list[str]]
"""The number of its first line, and its fields."""


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
            _check_columns(str(path), columns, table.schema_arrow.names)
            for batch in read_batches(table, list(columns)):
                yield from batch.to_pylist()
        return
    if suffix not in {*_DELIMITERS, ".jsonl"} and delimiter is None:
        raise ValueError(
            f"{path} is no table that can be read; expected a name that ends in .csv, .tsv, .jsonl or .parquet."
        )
    rows = _read_objects(path) if suffix == ".jsonl" else _read_fields(path, delimiter or _DELIMITERS[suffix])
    for number, row in enumerate(rows, start=1):
        _check_columns(f"{path}, record {number},", columns, row.keys())
        yield row


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text without their ends; only line feeds and carriage returns end a line.

    Raises:
        ValueError: If it is not in UTF-8, nor in UTF-16 or UTF-32 with their mark, or a line is absurdly long.
    """
    return [line.rstrip("\r\n") for line in _read_lines(path)]


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


def _read_lines(path: Path) -> Iterator[str]:
    with require_file(path).open("rb") as file:
        encoding = find_encoding(file.read(4))
    with path.open(encoding=encoding, newline="") as file:
        number = 0
        try:
            while line := file.readline(_MAX_LINE):
                number += 1
                if len(line) == _MAX_LINE:
                    raise ValueError(
                        f"{path}, line {number}, has {_MAX_LINE} letters or more; expected shorter ones, such as "
                        "captions have. Is it a file of another kind?"
                    )
                yield line.removeprefix(_MARK)  # files that were put together have marks inside, too
        except UnicodeError as error:
            reason = error.reason if isinstance(error, UnicodeDecodeError) else error
            raise ValueError(
                f"{path} is not in {encoding.removesuffix('-sig').upper()} after line {number} ({reason}). Expected "
                "UTF-8: convert it, such as by `iconv -f latin1 -t utf-8`."
            ) from error


def _read_objects(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_read_lines(path), start=1):
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


def _read_fields(path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    rows = _read_quoted(path, delimiter) if delimiter in _DELIMITERS_IN_TEXT else _read_plain(path, delimiter)
    header: list[str] = []
    number = 0
    for line, fields in rows:
        if not header:
            header = [name.strip() for name in fields]
            if repeated := {name for name in header if name and header.count(name) > 1}:
                raise ValueError(
                    f"{path} has the columns {sorted(repeated)} more than once; expected every name once, or nobody "
                    "can say which is meant. Rename one of them."
                )
            continue
        number += 1
        if len(header) > 1 and [field.strip() for field in fields] == header:
            raise ValueError(
                f"{path}, record {number} (line {line}), repeats the header; expected it once, or names of "
                "columns would be taken for texts. If several tables were put together, take out all but the first "
                "header."
            )
        if len(fields) > len(header):
            raise ValueError(
                f"{path}, record {number} (line {line}), has {len(fields)} fields, the header {len(header)}; what does "
                f"not fit would be lost. Put captions that hold {delimiter!r} in quotes."
            )
        if any(len(field) > _MAX_FIELD for field in fields):
            raise ValueError(
                f"{path}, record {number} (line {line}), has a field of more than {_MAX_FIELD} letters; expected "
                "shorter ones, such as captions. Is a quotation mark not closed?"
            )
        yield dict.fromkeys(header) | dict(zip(header, fields, strict=False))
    if not header:
        raise ValueError(f"{path} is empty; expected a line with the names of the columns, and rows below it.")


def _read_quoted(path: Path, delimiter: str) -> Iterator[_Record]:
    """Go through records whose fields may be in quotation marks, and then go over several lines."""
    num_columns = 0
    pending: list[str] = []
    size = 0
    header = ""
    for number, line in enumerate(_read_lines(path), start=1):
        if not pending and not line.strip(_BLANK):
            continue
        pending.append(line)
        size += len(line)
        if size > _MAX_FIELD and len(pending) > 1:
            break
        if len(pending) > 1 and '"' not in line:
            continue
        first = number - len(pending) + 1
        fields = _split_quoted(pending, delimiter, f"{path} cannot be read as a table in line {first}")
        if fields is None:
            continue
        if num_columns and _is_ambiguous(pending, fields, num_columns, delimiter):
            raise ValueError(
                f"{path}, line {first}, may be read in two ways: the quotation mark that begins a field is closed in "
                f"line {number}, and each line could also be a row of {num_columns} fields without it. Double the "
                "quotation marks that are part of a text, and enclose its field in two more; write texts of several "
                "lines as .jsonl."
            )
        header = header or line
        _check_end(path, number, line, header)
        num_columns = num_columns or len(fields)
        yield first, fields
        pending, size = [], 0
    if pending:
        raise ValueError(
            f"{path} cannot be read as a table: a quotation mark that begins a field in line "
            f"{number - len(pending) + 1} is not closed within {_MAX_FIELD} letters. Expected fields between "
            f"{delimiter!r}, quotes closed, those that are part of a text doubled."
        )


def _read_plain(path: Path, delimiter: str) -> Iterator[_Record]:
    """Go through records of one line each, in which quotation marks are text unless they enclose a whole field."""
    num_columns = 0
    header = ""
    for number, line in enumerate(_read_lines(path), start=1):
        if not line.strip(_BLANK):
            continue
        header = header or line
        _check_end(path, number, line, header)
        fields = _split_plain(line, delimiter)
        if '"' in line:
            try:
                quoted = _split_quoted([line], delimiter, "")
            except ValueError:
                pass
            else:
                if quoted is None and (len(fields) < num_columns or num_columns == 1):
                    raise ValueError(
                        f"{path}, line {number}, has a quotation mark that begins a field and is not closed, and may "
                        f"be read in two ways: as part of the text, or as a field of several lines, which tables "
                        f"between {delimiter!r} cannot have. Take it out, or write the table as .jsonl."
                    )
                if quoted is not None and len(quoted) == (num_columns or len(quoted)):
                    fields = quoted
        num_columns = num_columns or len(fields)
        yield number, fields


def _check_end(path: Path, number: int, line: str, header: str) -> None:
    if header.endswith("\n") and line.endswith("\r"):
        raise ValueError(
            f"{path}, line {number}, ends with a carriage return, the header with a line feed; expected the same of "
            "all rows, or nobody can say whether it is part of a text. Take it out, or enclose the text in quotes."
        )


def _split_quoted(lines: list[str], delimiter: str, where: str) -> list[str] | None:
    """Divide a record as RFC 4180 has it; ``None`` if a quotation mark is not closed yet."""
    if len(lines) == 1 and '"' not in lines[0]:
        return lines[0].rstrip("\r\n").split(delimiter)
    try:
        return next(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        try:
            next(csv.reader([*lines, '"'], delimiter=delimiter, strict=True))
        except csv.Error:
            raise ValueError(
                f"{where} ({error}); expected fields between {delimiter!r}, quotes closed, those that are part of a "
                "text doubled."
            ) from error
        return None


def _split_plain(line: str, delimiter: str) -> list[str]:
    fields = line.rstrip("\r\n").split(delimiter)
    return [field[1:-1].replace('""', '"') if _ENCLOSED.fullmatch(field) else field for field in fields]


def _is_ambiguous(lines: list[str], fields: list[str], num_columns: int, delimiter: str) -> bool:
    """Return whether the first and the last line of a record could be rows of their own, quotation marks taken as text.

    Between them anything may stand: a field that swallows rows is closed by the mark of another row. A delimiter before
    a space is taken for punctuation, unless such a one follows the field itself.
    """
    if len(lines) == 1:
        return len(fields) < num_columns == _count_fields(lines[0], delimiter, is_spaced=False)
    *before, opened = next(csv.reader(lines[:1], delimiter=delimiter))
    closed, _, after = lines[-1].replace('""', "").partition('"')
    rest = next(csv.reader([after.strip("\r\n")], delimiter=delimiter), None) or [""]
    is_spaced = after.startswith(f"{delimiter} ")
    num_first = len(before) + _count_fields(opened, delimiter, is_spaced)
    num_last = _count_fields(closed, delimiter, is_spaced) + len(rest) - 1
    return len(fields) < num_columns or num_first == num_columns == num_last


def _count_fields(text: str, delimiter: str, is_spaced: bool) -> int:
    return 1 + text.count(delimiter) - (0 if is_spaced else text.count(f"{delimiter} "))


def _check_columns(where: str, columns: Collection[str], present: Collection[str]) -> None:
    if missing := set(columns) - set(present):
        raise ValueError(
            f"{where} has no column {sorted(missing)}; it has {sorted(map(str, present))}. Name the columns that the "
            "table has, or its delimiter."
        )
