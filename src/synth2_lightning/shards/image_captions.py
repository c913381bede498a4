"""Resumable output of image captions: text, JSONL, CSV or COCO results, appended batch by batch."""

import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from synth2_lightning.io.atomic import write_atomically
from synth2_lightning.io.console import visible, visible_json
from synth2_lightning.io.json_text import parse_json
from synth2_lightning.io.locks import lock_file
from synth2_lightning.shards.settings import check_same_settings

Row = tuple[str, str]
"""Image name and caption."""

Format = Literal["text", "jsonl", "csv", "coco"]
"""``text`` is name, tab, caption; names escape backslash, tab and line ends with a backslash. ``coco`` is COCO's
results format, with the images' ids in place of their names.
"""

_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".csv": "csv", ".json": "coco"}
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def format_of(path: Path) -> Format:
    """Return the format for a file suffix; ``"text"`` for unknown suffixes.

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
    separator: str = ""
    footer: str = ""


class ImageCaptionFile:
    """Appends captions to a file durably; a later run with the same settings resumes it.

    :meth:`append` returns after the batch is synced to disk. A partial last row of a killed process is truncated on
    opening. The settings are stored next to the file, in ``NAME.made-by.json``. A lock prevents other processes from
    opening the file at the same time.

    Args:
        path: The file; it and its folder are created if missing.
        format: Format of the rows.
        made_by: Settings that determine the captions; resuming requires the same settings.
        ids: Ids by image name; required by ``coco``.

    Attributes:
        names: Names of the images that have captions in the file.

    Raises:
        BlockingIOError: If another process has the file open.
        OSError: If the file cannot be read or written.
        ValueError: If the file has rows of another format, or captions made with other settings.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with ImageCaptionFile(Path(folder) / "captions.jsonl", "jsonl", {"beams": 3}) as file:
        ...         file.append([("a.jpg", "a dog runs")])
        ...     with ImageCaptionFile(Path(folder) / "captions.jsonl", "jsonl", {"beams": 3}) as file:
        ...         file.names
        {'a.jpg'}
    """

    def __init__(
        self, path: Path, format: Format, made_by: Mapping[str, object], ids: Mapping[str, int | str] | None = None
    ) -> None:
        self.path = path
        self._layout = _coco_layout(ids or {}) if format == "coco" else _LAYOUTS[format]
        self.names: set[str] = set()
        with ExitStack() as opened:
            opened.enter_context(lock_file(path))
            self._check_settings({"format": format, **made_by})
            self._file = self._open()
            opened.callback(self._file.close)
            self._resume()
            self._opened = opened.pop_all()

    def append(self, rows: Sequence[Row]) -> None:
        """Append rows and sync them to disk."""
        text = "".join(map(self._layout.write, rows))
        self._write(text if self.names else text.removeprefix(self._layout.separator))
        self.names.update(name for name, _ in rows)

    def __enter__(self) -> "ImageCaptionFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._opened:
            if self._layout.footer and (kind is None or not issubclass(kind, OSError)):  # the last row is complete
                self._write(self._layout.footer)

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("r+b" if self.path.exists() else "x+b")
        except OSError as error:
            raise OSError(
                f"{self.path} cannot be opened for writing: {error}. Expected a file that is writable; choose "
                "another, or change its permissions. Nothing was changed."
            ) from error

    def _check_settings(self, made_by: Mapping[str, object]) -> None:
        settings_file = self.path.with_name(f"{self.path.name}.made-by.json")
        if self.path.exists() and self.path.stat().st_size:
            if not settings_file.is_file():
                raise ValueError(
                    f"{self.path} exists, but {settings_file.name}, the file with its settings, is missing. Expected "
                    "both or none; choose another file, or delete this one."
                )
            try:
                before = dict(parse_json(settings_file.read_bytes()))
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{settings_file}, the file with the settings of {self.path.name}, is damaged ({error}). Expected "
                    "it unchanged: restore it, choose another file, or delete both."
                ) from error
            check_same_settings(self.path, before, made_by)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            content = json.dumps(made_by, indent=2, ensure_ascii=False) + "\n"
            write_atomically(settings_file, lambda draft: draft.write_text(content, encoding="utf-8"))

    def _resume(self) -> None:
        content = self._file.read().decode("utf-8", errors="surrogateescape")
        records = list(self._layout.split(content))
        if len(records) > 1 and records[-1] == self._layout.footer:
            del records[-1]
        for number, record in enumerate(records, start=1):
            try:
                if number > 1 or not self._layout.header:
                    self.names.add(self._layout.read(record)[0])
                elif record != self._layout.header:
                    raise ValueError("another header")
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"Line or record {number} of {self.path} was not written by `synth2 caption`, so the file cannot "
                    "be resumed; expected rows of its format only. Repair the file, or choose another. Nothing was "
                    "changed."
                ) from error
        self._file.truncate(len("".join(records).encode("utf-8", errors="surrogateescape")))
        self._file.seek(0, os.SEEK_END)
        if not records:
            self._write(self._layout.header)

    def _write(self, text: str) -> None:
        try:
            self._file.write(text.encode("utf-8", errors="surrogateescape"))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OSError(
                f"{self.path} cannot be written: {error}. Expected free disk space; {len(self.names)} captions are "
                "saved. Free disk space and run the same command again: it resumes after them."
            ) from error


class ImageCaptionStream:
    r"""Writes captions to standard output, batch by batch.

    Control characters of names and captions are escaped (``\x1b``), because terminals would execute them. JSONL parsers
    restore them; for other formats use :class:`ImageCaptionFile`, which does not escape them.

    Example:
        >>> ImageCaptionStream("csv").append([("a.jpg", "a dog runs")])
        image,caption
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
    """Return the complete lines with their line ends."""
    return (line for line in io.StringIO(content, newline="\n") if line.endswith("\n"))


def _split_csv(content: str) -> Iterator[str]:
    """Yield the complete records; quoted fields may contain line ends."""
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
    return visible_json(json.dumps({"image": row[0], "caption": row[1]}, ensure_ascii=False)) + "\n"


def _read_jsonl(record: str) -> Row:
    row = json.loads(record)
    return str(row["image"]), str(row["caption"])


def _write_csv(row: Row) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(row)  # this terminator makes it quote carriage returns as well
    return text.getvalue().removesuffix("\r\n") + "\n"


def _read_csv(record: str) -> Row:
    ((name, caption),) = csv.reader(io.StringIO(record, newline=""))
    return name, caption


def _coco_layout(ids: Mapping[str, int | str]) -> _Layout:
    """Return the layout of a JSON array with one line per row, to which rows can be appended."""
    names = {key: name for name, key in ids.items()}

    def write(row: Row) -> str:
        return "," + visible_json(json.dumps({"image_id": ids[row[0]], "caption": row[1]}, ensure_ascii=False)) + "\n"

    def read(record: str) -> Row:
        row = json.loads(record.removeprefix(","))
        return names[row["image_id"]], str(row["caption"])

    return _Layout("[\n", write, read, _split_lines, separator=",", footer="]\n")


_LAYOUTS: dict[Format, _Layout] = {
    "text": _Layout("", _write_text, _read_text, _split_lines),
    "jsonl": _Layout("", _write_jsonl, _read_jsonl, _split_lines),
    "csv": _Layout(_write_csv(("image", "caption")), _write_csv, _read_csv, _split_csv),
}
