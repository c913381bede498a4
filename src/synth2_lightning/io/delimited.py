"""Reading of CSV and TSV files with and without quoting."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synth2_lightning.io.json_text import find_encoding
from synth2_lightning.io.paths import require_file

_DELIMITERS_IN_TEXT = ",;"
_MAX_LINE = 16 * 2**20
_MAX_FIELD = csv.field_size_limit()
_ENCLOSED = re.compile(r'"(?:[^"]|"")*"')
_MARK = "\ufeff"
_BLANK = " \r\n"  # not the tab, which separates empty fields

_Record = tuple[int, list[str]]
"""Number of the first line, and fields."""


def iterate_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, with their ends; UTF-8 or, with a byte order mark, UTF-16 or UTF-32."""
    with require_file(path).open("rb") as file:
        encoding = find_encoding(file.read(4))
    with path.open(encoding=encoding, newline="") as file:
        number = 0
        try:
            while line := file.readline(_MAX_LINE):
                number += 1
                if len(line) == _MAX_LINE:
                    raise ValueError(
                        f"{path}, line {number}, has {_MAX_LINE} characters or more; expected fewer. Check that it is "
                        "a table of texts."
                    )
                yield line.removeprefix(_MARK)  # concatenated files have marks inside, too
        except UnicodeError as error:
            reason = error.reason if isinstance(error, UnicodeDecodeError) else error
            raise ValueError(
                f"{path} is not valid {encoding.removesuffix('-sig').upper()} after line {number} ({reason}); expected "
                "UTF-8. Convert it, for example with `iconv -f latin1 -t utf-8`."
            ) from error


def read_fields(path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table with a header line as mappings of columns to fields."""
    rows = _read_quoted(path, delimiter) if delimiter in _DELIMITERS_IN_TEXT else _read_plain(path, delimiter)
    header: list[str] = []
    number = 0
    for line, fields in rows:
        if not header:
            header = [name.strip() for name in fields]
            if repeated := {name for name in header if name and header.count(name) > 1}:
                raise ValueError(
                    f"{path} has the columns {sorted(repeated)} more than once; expected unique names. Rename one of "
                    "them."
                )
            continue
        number += 1
        if len(header) > 1 and [field.strip() for field in fields] == header:
            raise ValueError(
                f"{path}, record {number} (line {line}), repeats the header; expected it once. If several tables were "
                "concatenated, remove all but the first header."
            )
        if len(fields) > len(header):
            raise ValueError(
                f"{path}, record {number} (line {line}), has {len(fields)} fields; expected {len(header)}, as in the "
                f"header. Quote captions that contain {delimiter!r}."
            )
        if any(len(field) > _MAX_FIELD for field in fields):
            raise ValueError(
                f"{path}, record {number} (line {line}), has a field of more than {_MAX_FIELD} characters; expected "
                "fewer. Check for a quotation mark that is not closed."
            )
        yield dict.fromkeys(header) | dict(zip(header, fields, strict=False))
    if not header:
        raise ValueError(f"{path} is empty; expected a header line with the names of the columns, and rows.")


def _read_quoted(path: Path, delimiter: str) -> Iterator[_Record]:
    """Yield records with fields that may be quoted and then span several lines."""
    num_columns = 0
    pending: list[str] = []
    size = 0
    header = ""
    for number, line in enumerate(iterate_lines(path), start=1):
        if not pending and not line.strip(_BLANK):
            continue
        pending.append(line)
        size += len(line)
        if size > _MAX_FIELD and len(pending) > 1:
            break
        if len(pending) > 1 and '"' not in line:
            continue
        first = number - len(pending) + 1
        fields = _split_quoted(pending, delimiter, f"{path} cannot be parsed as a table at line {first}")
        if fields is None:
            continue
        if num_columns and _is_ambiguous(pending, fields, num_columns, delimiter):
            raise ValueError(
                f"{path}, line {first}, is ambiguous: the quotation mark at the start of a field is closed in line "
                f"{number}, but each line could also be a row of {num_columns} fields. Expected quotation marks inside "
                "a text to be doubled and its field to be quoted; write texts of several lines as .jsonl."
            )
        header = header or line
        _check_end(path, number, line, header)
        num_columns = num_columns or len(fields)
        yield first, fields
        pending, size = [], 0
    if pending:
        raise ValueError(
            f"{path} cannot be parsed as a table: a quotation mark at the start of a field in line "
            f"{number - len(pending) + 1} is not closed within {_MAX_FIELD} characters. Expected fields separated by "
            f"{delimiter!r}, closed quotes, and doubled ones inside a text."
        )


def _read_plain(path: Path, delimiter: str) -> Iterator[_Record]:
    """Yield records of one line each, in which quotation marks are text unless they enclose an entire field."""
    num_columns = 0
    header = ""
    for number, line in enumerate(iterate_lines(path), start=1):
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
                        f"{path}, line {number}, is ambiguous: a quotation mark at the start of a field is not closed. "
                        "It is part of the text, or starts a field of several lines, which tables separated by "
                        f"{delimiter!r} cannot have. Expected closed quotes: remove it, or write the table as .jsonl."
                    )
                if quoted is not None and len(quoted) == (num_columns or len(quoted)):
                    fields = quoted
        num_columns = num_columns or len(fields)
        yield number, fields


def _check_end(path: Path, number: int, line: str, header: str) -> None:
    if header.endswith("\n") and line.endswith("\r"):
        raise ValueError(
            f"{path}, line {number}, ends with a carriage return; expected a line feed, as at the end of the header. "
            "Remove it, or quote the text if it is part of one."
        )


def _split_quoted(lines: list[str], delimiter: str, where: str) -> list[str] | None:
    """Split a record by RFC 4180; ``None`` if a quotation mark is not closed yet."""
    if len(lines) == 1 and '"' not in lines[0]:
        return lines[0].rstrip("\r\n").split(delimiter)
    try:
        return next(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        try:
            next(csv.reader([*lines, '"'], delimiter=delimiter, strict=True))
        except csv.Error:
            raise ValueError(
                f"{where} ({error}); expected fields separated by {delimiter!r}, closed quotes, and doubled ones "
                "inside a text."
            ) from error
        return None


def _split_plain(line: str, delimiter: str) -> list[str]:
    fields = line.rstrip("\r\n").split(delimiter)
    return [field[1:-1].replace('""', '"') if _ENCLOSED.fullmatch(field) else field for field in fields]


def _is_ambiguous(lines: list[str], fields: list[str], num_columns: int, delimiter: str) -> bool:
    """Return whether the first and last line of a record could be separate rows, with quotation marks as text.

    An unclosed field ends at the quotation mark of a later row, so lines in between are not checked. A delimiter before
    a space counts as punctuation, unless a delimiter and a space also follow the field itself.
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
