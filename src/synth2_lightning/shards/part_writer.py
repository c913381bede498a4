"""Resumable writing of rows to the Parquet parts of a folder."""

import json
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import pyarrow as pa

from synth2_lightning.io.atomic import write_atomically
from synth2_lightning.io.parquet import write_parquet
from synth2_lightning.shards.parts import list_parts, part_name, read_footer, read_keys, read_part, read_settings
from synth2_lightning.shards.settings import check_same_settings


@runtime_checkable
class KeyedRow(Protocol):
    """A row that its source and key identify."""

    @property
    def key(self) -> str:
        """Id within the source."""

    @property
    def source(self) -> str:
        """Name of the source."""


Row = TypeVar("Row", bound=KeyedRow)
Fingerprints = Callable[[Sequence[tuple[str, str]]], list[str | None]]
_INPUT = "input"
"""Column with the fingerprint of the inputs of a row, if known."""


class PartWriter(ABC, Generic[Row]):
    """Appends rows to a folder of Parquet parts; rows that the folder has already are ignored.

    Several ranks may write to one folder at the same time.

    Args:
        folder: Folder of the parts; created if missing.
        rank: Rank of this process, part of its file names.
        records_per_part: Rows per part; a killed process loses at most the rows since its last part.

    Raises:
        ValueError: If ``records_per_part`` is below 1.
    """

    summaries: tuple[str, ...] = ()
    """Names of files derived from all parts; a new part deletes them."""

    def __init__(self, folder: Path, rank: int = 0, records_per_part: int = 10_000) -> None:
        if records_per_part < 1:
            raise ValueError(f"{type(self).__name__} got records_per_part={records_per_part}; expected 1 or more.")
        self.folder = folder
        self.rank = rank
        self.records_per_part = records_per_part
        parts = list_parts(folder)
        self._settings: dict[str, Any] = read_settings(parts[0]) if parts else {}
        self._written = {key for part in parts for key in read_keys(part)}
        # Continue after the highest number, so that a deleted part leaves a gap and not a conflict.
        own = (re.fullmatch(rf"part-{rank:05d}-(\d+)\.parquet", part.name) for part in parts)
        self._next_number = max((int(found[1]) for found in own if found), default=-1) + 1
        self._waiting: list[Row] = []
        self._fingerprint: Fingerprints | None = None

    @abstractmethod
    def make_table(self, rows: Sequence[Row], settings: Mapping[str, object]) -> pa.Table:
        """Return the table of a part, with the settings in its schema metadata."""

    def start(self, settings: Mapping[str, object]) -> None:
        """Set the settings of the records and create the folder; must be called before the first record.

        Each part stores the settings; a resumed run must have the same.

        Args:
            settings: All settings that determine the records, as JSON values.

        Raises:
            ValueError: If the records in the folder were made with other settings.
            OSError: If the folder cannot be written to.
        """
        plain = json.loads(json.dumps(settings))
        if self._written:
            check_same_settings(self.folder, self._settings, plain)
        self._settings = plain
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise OSError(
                f"{self.folder} cannot be written to: {error}. Expected a folder that is writable and has free space; "
                "choose another, or change its permissions."
            ) from error

    def note_inputs(self, fingerprint: Fingerprints) -> None:
        """Store fingerprints of their inputs with all further records.

        Args:
            fingerprint: Maps pairs of source and key to fingerprints, as
                :meth:`~synth2_lightning.interfaces.HasInputs.fingerprint_inputs`.
        """
        self._fingerprint = fingerprint

    def check_same_inputs(self, fingerprint: Fingerprints) -> None:
        """Check that the inputs of the written records are unchanged; the argument is that of :meth:`note_inputs`.

        Raises:
            ValueError: If an input changed, with the part and the first record.
        """
        for part in list_parts(self.folder):
            if _INPUT not in read_footer(part).schema.to_arrow_schema().names:
                continue  # the datamodule does not fingerprint its inputs
            stored = read_part(part, [_INPUT])[_INPUT].to_pylist()
            records = list(read_keys(part))
            changed = [
                (record, new)
                for record, old, new in zip(records, stored, fingerprint(records), strict=True)
                if None not in (old, new) and old != new
            ]
            if changed:
                (source, key), new = changed[0]
                change = "has changed since" if new else "no longer exists"
                raise ValueError(
                    f"The input of {key!r} of source {source!r} in {part} {change}; this concerns {len(changed)} of "
                    f"the {len(records)} records of that part. Expected unchanged inputs: restore them to resume, "
                    "choose another folder, or delete this one."
                )

    def __len__(self) -> int:
        """Number of written records: those found at construction, and those of this writer."""
        return len(self._written) - len(self._waiting)

    def __contains__(self, record: object) -> bool:
        """Whether a record, given as source and key, is written or buffered."""
        return record in self._written

    def add(self, rows: Iterable[Row]) -> int:
        """Append the rows that are new, and return their number.

        Raises:
            OSError: If a part cannot be written.
        """
        num_new = 0
        for row in rows:
            if (row.source, row.key) not in self:
                self._written.add((row.source, row.key))
                self._waiting.append(row)
                num_new += 1
        while len(self._waiting) >= self.records_per_part:
            self._write_part(self.records_per_part)
        return num_new

    def close(self) -> None:
        """Write the buffered rows; the writer remains usable."""
        if self._waiting:
            self._write_part(len(self._waiting))

    def _write_part(self, num_records: int) -> None:
        rows = self._waiting[:num_records]
        table = self.make_table(rows, self._settings)
        if self._fingerprint is not None:
            inputs = self._fingerprint([(row.source, row.key) for row in rows])
            table = table.append_column(_INPUT, pa.array(inputs, pa.string()))

        def write(draft: Path) -> None:
            # A new part makes the summaries outdated.
            for name in self.summaries:
                (self.folder / name).unlink(missing_ok=True)
            write_parquet(table, draft)

        try:
            write_atomically(self.folder / part_name(self.rank, self._next_number), write)
        except OSError as error:
            raise OSError(f"{error} {self._describe_loss()}") from error
        self._next_number += 1
        del self._waiting[:num_records]

    def _describe_loss(self) -> str:
        parts = list_parts(self.folder)
        return (
            f"{sum(read_footer(part).num_rows for part in parts)} records are saved in {len(parts)} finished parts of "
            f"{self.folder}; {len(self._waiting)} later ones of this process are lost. Free disk space and run the "
            "same command again: it resumes after the finished parts."
        )
