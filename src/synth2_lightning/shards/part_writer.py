"""Write rows to the Parquet parts of a folder: kill it at any moment, start it again, and it goes on."""

import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import pyarrow as pa

from synth2_lightning.files import write_atomically
from synth2_lightning.parquet import write_parquet
from synth2_lightning.shards.parts import list_parts, part_name, read_footer, read_keys, read_part, read_settings
from synth2_lightning.shards.settings import refuse_other_settings


@runtime_checkable
class KeyedRow(Protocol):
    """A row that can be told from all others of a folder."""

    @property
    def key(self) -> str:
        """Its id among those of its source."""

    @property
    def source(self) -> str:
        """Name of where it comes from."""


Row = TypeVar("Row", bound=KeyedRow)
Fingerprints = Callable[[Sequence[tuple[str, str]]], list[str | None]]
_INPUT = "input"
"""Column with the fingerprint of what a row was made from, where that is known."""


class PartWriter(ABC, Generic[Row]):
    """Appends rows to a folder of Parquet parts; what the folder holds already is not written twice.

    Several ranks may write to one folder at once.

    Args:
        folder: Where the parts go; made with the first of them.
        rank: This process' number, part of the names of its files.
        records_per_part: Rows per file; a kill loses no more than the rows since the last one.

    Raises:
        ValueError: If ``records_per_part`` is below one.
    """

    summaries: tuple[str, ...] = ()
    """Names of files that are made of all parts, and are withdrawn when there is a new one."""

    def __init__(self, folder: Path, rank: int = 0, records_per_part: int = 10_000) -> None:
        if records_per_part < 1:
            raise ValueError(f"{type(self).__name__} got records_per_part={records_per_part}; expected 1 or more.")
        self.folder = folder
        self.rank = rank
        self.records_per_part = records_per_part
        parts = list_parts(folder)
        self._settings: dict[str, Any] = read_settings(parts[0]) if parts else {}
        self._written = {key for part in parts for key in read_keys(part)}
        # Numbers go on after the highest one: a part that was deleted by hand leaves a gap, never a clash.
        own = [part.name for part in parts if part.name.startswith(f"part-{rank:05d}-")]
        self._next_number = max((int(name.removesuffix(".parquet").split("-")[2]) for name in own), default=-1) + 1
        self._waiting: list[Row] = []
        self._fingerprint: Fingerprints | None = None

    @abstractmethod
    def make_table(self, rows: Sequence[Row], settings: Mapping[str, Any]) -> pa.Table:
        """Make a part of rows; its schema's metadata carry the settings."""

    def start(self, settings: Mapping[str, Any]) -> None:
        """Say what makes the records, before there is one; the second call with the same settings does nothing.

        Every part carries the settings, so that a run which goes on can be held to them.

        Args:
            settings: All that decides the records, in plain values that JSON can hold.

        Raises:
            ValueError: If the folder's records were made with other settings.
            OSError: If the folder cannot be written to.
        """
        given = json.loads(json.dumps(settings))
        if self._written:
            refuse_other_settings(self.folder, self._settings, given)
        self._settings = given
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise OSError(
                f"Nothing can be written to {self.folder}: {error}. Expected a folder that may be written to, with "
                "room left; choose another, or change its permissions."
            ) from error

    def note_inputs(self, fingerprint: Fingerprints) -> None:
        """Write further records with fingerprints of what they are made from.

        Args:
            fingerprint: Gives them, for sources and keys; see :class:`~synth2_lightning.interfaces.HasInputs`.
        """
        self._fingerprint = fingerprint

    def refuse_other_inputs(self, fingerprint: Fingerprints) -> None:
        """Refuse to go on where what records were made from has changed since they were written.

        Args:
            fingerprint: As of :meth:`note_inputs`.

        Raises:
            ValueError: If it has, with the part and the first of the records.
        """
        for part in list_parts(self.folder):
            if _INPUT not in read_footer(part).schema.to_arrow_schema().names:
                continue  # of an earlier version, or from a datamodule that says nothing of it
            before = read_part(part, [_INPUT])[_INPUT].to_pylist()
            records = list(read_keys(part))
            changed = [
                (record, now)
                for record, then, now in zip(records, before, fingerprint(records), strict=True)
                if None not in (then, now) and then != now
            ]
            if changed:
                (source, key), now = changed[0]
                what = "has changed since" if now else "is no longer there"
                raise ValueError(
                    f"What {key!r} of source {source!r} in {part} was made from {what}, and so it is with "
                    f"{len(changed)} of the {len(records)} records of that part. Expected the inputs of the run's "
                    "beginning: bring them back to go on, name another folder, or delete this one."
                )

    def __len__(self) -> int:
        """Number of records that are written, by all ranks before this writer was made and by this one since."""
        return len(self._written) - len(self._waiting)

    def __contains__(self, record: object) -> bool:
        """Whether a record, named by its source and its key, is written or waits to be."""
        return record in self._written

    def add(self, rows: Iterable[Row]) -> int:
        """Add those rows that are not there yet, and return how many those are.

        Raises:
            OSError: If a part is full and cannot be written.
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
        """Write what waits; the writer may be used further."""
        if self._waiting:
            self._write_part(len(self._waiting))

    def _write_part(self, num_records: int) -> None:
        rows = self._waiting[:num_records]
        table = self.make_table(rows, self._settings)
        if self._fingerprint is not None:
            inputs = self._fingerprint([(row.source, row.key) for row in rows])
            table = table.append_column(_INPUT, pa.array(inputs, pa.string()))

        def write(draft: Path) -> None:
            # From here until they are made anew, the folder is no longer what its summaries say.
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
            f"{sum(read_footer(part).num_rows for part in parts)} records are safe in {len(parts)} finished parts of "
            f"{self.folder}; {len(self._waiting)} that this process had made since are lost. Start the same command "
            "again once there is room: it goes on after the finished parts."
        )
