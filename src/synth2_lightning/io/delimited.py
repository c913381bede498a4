"""Read the rows of CSV and TSV files as the web has them, with and without quotation marks."""

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
_BLANK = " \r\n"  # a tabulator divides empty fields

_Record = tuple[int, list[str]]
"""The number of its first line, and its fields."""


def iterate_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file in its own encoding (UTF-8 or, with a mark, UTF-16), with their ends."""
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


def read_fields(path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table with a header line as fields by column."""
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
