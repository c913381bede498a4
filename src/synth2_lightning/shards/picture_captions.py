"""Captions of pictures as a file that can be gone on with: text, JSONL or CSV, appended batch after batch."""

import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from synth2_lightning.console import visible, visible_json
from synth2_lightning.files import lock_file, write_atomically
from synth2_lightning.jsontext import parse_json
from synth2_lightning.shards.settings import refuse_other_settings

Row = tuple[str, str]
"""Name of a picture, caption."""

Format = Literal["text", "jsonl", "csv"]
"""``text`` is name, tabulator, caption; in names, backslash, tabulator and line ends are written with a backslash."""

_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def format_of(path: Path) -> Format:
    """Tell the format by the end of a file's name; text, where that says nothing.

    Example:
        >>> format_of(Path("captions.CSV")), format_of(Path("captions"))
        ('csv', 'text')
    """
    return _SUFFIXES.get(path.suffix.lower(), "text")


@dataclass(frozen=True, slots=True)
class _Layout:
    header: str
    write: Callable[[Row], str]
    read: Callable[[str], Row]
    split: Callable[[str], Iterator[str]]


class PictureCaptionFile:
    """Appends captions to a file so that a kill at any moment loses none that was written, and a next run goes on.

    Every batch is on the disk when :meth:`append` returns. Half a row, which a kill may leave at the end, is cut off
    when the file is opened again. What made the captions stands beside the file, in ``NAME.made-by.json``. Until it is
    closed, no second process can open it.

    Args:
        path: The file; it and its folder are made where they are not there.
        format: How rows are written.
        made_by: What decides the captions; a file is gone on with by the same only.

    Raises:
        BlockingIOError: If another process writes it.
        OSError: If the file cannot be read or written.
        ValueError: If it holds something else than rows of this format, or captions that were made in another way.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with PictureCaptionFile(Path(folder) / "captions.jsonl", "jsonl", {"beams": 3}) as file:
        ...         file.append([("a.jpg", "a dog runs")])
        ...     with PictureCaptionFile(Path(folder) / "captions.jsonl", "jsonl", {"beams": 3}) as file:
        ...         file.names
        {'a.jpg'}
    """

    def __init__(self, path: Path, format: Format, made_by: dict[str, Any]) -> None:
        self.path = path
        self._layout = _LAYOUTS[format]
        self.names: set[str] = set()
        with ExitStack() as opened:
            opened.enter_context(lock_file(path))
            self._check_settings({"format": format, **made_by})
            self._file = self._open()
            opened.callback(self._file.close)
            self._go_on()
            self._opened = opened.pop_all()

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows, to the disk."""
        self._write("".join(map(self._layout.write, rows)))
        self.names.update(name for name, _ in rows)

    def __enter__(self) -> "PictureCaptionFile":
        """Give the file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._opened.close()

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("r+b" if self.path.exists() else "x+b")
        except OSError as error:
            raise OSError(
                f"{self.path} cannot be opened to write: {error}. Expected a file that may be written to; name "
                "another, or change its permissions. What it holds is as it was."
            ) from error

    def _check_settings(self, made_by: dict[str, Any]) -> None:
        beside = self.path.with_name(f"{self.path.name}.made-by.json")
        if self.path.exists() and self.path.stat().st_size:
            if not beside.is_file():
                raise ValueError(
                    f"{self.path} is there, but {beside.name}, which says what made it, is not. Expected both or none; "
                    "name another file, or delete this one."
                )
            try:
                before = dict(parse_json(beside.read_bytes()))
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{beside}, which says what made {self.path.name}, is damaged ({error}). Expected it as it was "
                    "written: bring it back, name another file, or delete both."
                ) from error
            refuse_other_settings(self.path, before, made_by)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            content = json.dumps(made_by, indent=2, ensure_ascii=False) + "\n"
            write_atomically(beside, lambda draft: draft.write_text(content, encoding="utf-8"))

    def _go_on(self) -> None:
        content = self._file.read().decode("utf-8", errors="surrogateescape")
        records = list(self._layout.split(content))
        for number, record in enumerate(records, start=1):
            if number == 1 and self._layout.header:
                self._check(record == self._layout.header, number)
            else:
                self.names.add(self._read(record, number))
        self._file.truncate(len("".join(records).encode("utf-8", errors="surrogateescape")))
        self._file.seek(0, os.SEEK_END)
        if not records:
            self._write(self._layout.header)

    def _read(self, record: str, number: int) -> str:
        try:
            return self._layout.read(record)[0]
        except (ValueError, KeyError, TypeError):
            self._check(False, number)
            raise

    def _check(self, is_good: bool, number: int) -> None:
        if not is_good:
            raise ValueError(
                f"Line or record {number} of {self.path} is none that `synth2 caption` wrote, so it cannot be gone on "
                "with; expected rows of its format only. Repair the file, or name another one. Nothing was changed."
            )

    def _write(self, text: str) -> None:
        try:
            self._file.write(text.encode("utf-8", errors="surrogateescape"))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OSError(
                f"{self.path} cannot be written: {error}. The {len(self.names)} captions before are safe in it. Free "
                "some room, or repair the disk, and start the same command again: it goes on after them."
            ) from error


class PictureCaptionStream:
    r"""Writes captions to the standard output, batch after batch.

    Control characters of names and captions are written out (``\x1b``), since they would act on a terminal. In JSONL
    they come back as they were; for other formats a :class:`PictureCaptionFile` keeps them.

    Args:
        format: How rows are written.

    Example:
        >>> PictureCaptionStream("csv").append([("a.jpg", "a dog runs")])
        picture,caption
        a.jpg,a dog runs
    """

    def __init__(self, format: Format) -> None:
        self._layout = _LAYOUTS[format]
        self._pending = self._layout.header

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows."""
        text = self._pending + "".join(map(self._layout.write, rows))
        self._pending = ""
        sys.stdout.write(visible(text))
        sys.stdout.flush()


def _split_lines(content: str) -> Iterator[str]:
    """Cut into lines with their ends; the last one is left out if it has none."""
    return (line for line in io.StringIO(content, newline="\n") if line.endswith("\n"))


def _split_csv(content: str) -> Iterator[str]:
    """Cut into records, whose quoted parts may hold line ends; the last one is left out if it is not whole."""
    pending = ""
    for line in _split_lines(content):
        pending += line
        if pending.count('"') % 2 == 0:
            yield pending
            pending = ""


def _write_text(row: Row) -> str:
    name, caption = row
    return f"{''.join(_ESCAPES.get(letter, letter) for letter in name)}\t{' '.join(caption.split())}\n"


def _read_text(record: str) -> Row:
    name, caption = record.removesuffix("\n").split("\t")
    meanings = {escape: letter for letter, escape in _ESCAPES.items()}
    return re.sub(r"\\.", lambda match: meanings[match[0]], name), caption


def _write_jsonl(row: Row) -> str:
    return visible_json(json.dumps({"picture": row[0], "caption": row[1]}, ensure_ascii=False)) + "\n"


def _read_jsonl(record: str) -> Row:
    row = json.loads(record)
    return str(row["picture"]), str(row["caption"])


def _write_csv(row: Row) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(row)  # it quotes what ends lines for it, carriage returns, too
    return text.getvalue().removesuffix("\r\n") + "\n"


def _read_csv(record: str) -> Row:
    ((name, caption),) = csv.reader(io.StringIO(record, newline=""))
    return name, caption


_LAYOUTS: dict[Format, _Layout] = {
    "text": _Layout("", _write_text, _read_text, _split_lines),
    "jsonl": _Layout("", _write_jsonl, _read_jsonl, _split_lines),
    "csv": _Layout(_write_csv(("picture", "caption")), _write_csv, _read_csv, _split_csv),
}
