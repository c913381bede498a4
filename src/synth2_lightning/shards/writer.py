"""Write token shards: kill it at any moment, start it again, and it goes on."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from synth2_lightning.shards.files import write_atomically
from synth2_lightning.shards.manifest import FILE_NAME, Manifest, TokenFormat
from synth2_lightning.shards.parts import (
    list_parts,
    make_schema,
    part_name,
    read_footer,
    read_header,
    read_keys,
    remove_drafts,
)
from synth2_lightning.shards.settings import refuse_other_settings
from synth2_lightning.types import TokenizedImages


class _Row(NamedTuple):
    key: str
    source: str
    captions: tuple[str, ...]
    tokens: np.ndarray[Any, np.dtype[np.uint16]]
    class_name: str | None
    seed: int | None
    scores: tuple[float, ...] | None


class ShardWriter:
    """Appends pictures to a folder of Parquet parts; what the folder holds already is not written twice.

    Several ranks may write to one folder at once. When all of them have closed, one calls :func:`finish`.

    Args:
        folder: Where the parts go; made with the first of them.
        rank: This process' number, part of the names of its files.
        records_per_part: Rows per file; a kill loses no more than the rows since the last one.

    Raises:
        ValueError: If ``records_per_part`` is below one.

    Example:
        >>> import tempfile
        >>> from synth2_lightning.types import VQTokens
        >>> tokens = VQTokens(torch.zeros(1, 64, 1, dtype=torch.long), "vqgan-512:1f3c9a02")
        >>> images = TokenizedImages(("7",), ("scenes",), (("a red circle",),), tokens, codebook_size=512)
        >>> folder = Path(tempfile.mkdtemp())
        >>> with_one = ShardWriter(folder)
        >>> with_one.append(images), with_one.append(images)
        (1, 0)
        >>> with_one.close()
        >>> finish(folder, provenance={}).num_records
        1
    """

    def __init__(self, folder: Path, rank: int = 0, records_per_part: int = 10_000) -> None:
        if records_per_part < 1:
            raise ValueError(f"ShardWriter got records_per_part={records_per_part}; expected 1 or more.")
        self.folder = folder
        self.rank = rank
        self.records_per_part = records_per_part
        parts = list_parts(folder)
        self._format: TokenFormat | None = None
        self._settings: dict[str, Any] = {}
        if parts:
            self._format, self._settings = read_header(parts[0])
        self._written = {key for part in parts for key in read_keys(part)}
        # Numbers go on after the highest one: a part that was deleted by hand leaves a gap, never a clash.
        own = [part.name for part in parts if part.name.startswith(f"part-{rank:05d}-")]
        self._next_number = max((int(name.removesuffix(".parquet").split("-")[2]) for name in own), default=-1) + 1
        self._waiting: list[_Row] = []

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
                f"No shards can be written to {self.folder}: {error}. Expected a folder that may be written to, with "
                "room left; choose another, or change its permissions."
            ) from error

    def __len__(self) -> int:
        """Number of records that are written, by all ranks before this writer was made and by this one since."""
        return len(self._written) - len(self._waiting)

    def __contains__(self, record: object) -> bool:
        """Whether a picture, named by its source and its key, is written or waits to be."""
        return record in self._written

    def append(self, images: TokenizedImages) -> int:
        """Add those pictures that are not there yet, and return how many those are.

        Raises:
            ValueError: If the tokens are of another format than those that the folder holds, or out of range.
            OSError: If a part is full and cannot be written.
        """
        self._check(images)
        rows = images.tokens.ids.flatten(1).cpu().numpy().astype(np.uint16)
        num_new = 0
        nothing = (None,) * len(images)
        columns = (images.keys, images.sources, images.captions, rows)
        optional = (images.class_names or nothing, images.seeds or nothing, images.scores or nothing)
        for values in zip(*columns, *optional, strict=True):
            row = _Row(*values)
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

    def _check(self, images: TokenizedImages) -> None:
        ids = images.tokens.ids
        given = TokenFormat(
            codebook=images.tokens.codebook,
            codebook_size=images.codebook_size,
            num_tokens=ids.shape[1],
            num_levels=ids.shape[2],
        )
        self._format = self._format or given
        if given != self._format:
            raise ValueError(
                f"The tokens to be written are {given}, but {self.folder} holds {self._format}. Expected one format "
                "per folder: choose another folder, or delete this one."
            )
        low, high = (int(bound) for bound in torch.aminmax(ids)) if ids.numel() else (0, 0)
        if low < 0 or high >= images.codebook_size:
            raise ValueError(
                f"The tokens to be written hold ids from {low} to {high}; expected 0 to {images.codebook_size - 1}, "
                f"the ids of codebook {given.codebook!r}. The tokenizer that made them is at fault."
            )

    def _write_part(self, num_records: int) -> None:
        assert self._format is not None, "append() sets the format before there is a record"
        keys, sources, captions, rows, class_names, seeds, scores = zip(*self._waiting[:num_records], strict=True)
        tokens = pa.FixedSizeListArray.from_arrays(np.concatenate(rows), self._format.row_length)
        table = pa.table(
            {
                "key": keys,
                "source": sources,
                "captions": captions,
                "tokens": tokens,
                "class_name": [name or None for name in class_names],
                "seed": seeds,
                "scores": scores,
            },
            schema=make_schema(self._format, self._settings),
        )

        def write(draft: Path) -> None:
            # From here until finish() the folder is no longer what its manifest says.
            (self.folder / FILE_NAME).unlink(missing_ok=True)
            pq.write_table(table, draft, compression="zstd")

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


def finish(folder: Path, provenance: dict[str, Any], is_evaluation: bool = False) -> Manifest:
    """Write the manifest over all parts of a folder; to be called once, when every writer has closed.

    Args:
        folder: Where the parts are.
        provenance: What made them, for people; the settings that the parts carry are added.
        is_evaluation: Whether they come from an evaluation split.

    Raises:
        ValueError: If there is no part, or the parts are of several formats, or made with several settings.
    """
    parts = list_parts(folder)
    if not parts:
        raise ValueError(f"{folder} holds no part to make a manifest of; expected at least one written picture.")
    remove_drafts(folder)
    tokens, settings = read_header(parts[0])
    for part in parts:
        other_tokens, other_settings = read_header(part)
        if other_tokens != tokens:
            raise ValueError(
                f"{part} holds {other_tokens}, but {parts[0].name} beside it holds {tokens}. Expected one format "
                "per folder: delete the parts that are not wanted."
            )
        refuse_other_settings(part, other_settings, settings)
    manifest = Manifest(
        tokens=tokens,
        parts={part.name: read_footer(part).num_rows for part in parts},
        provenance={**provenance, "settings": settings},
        is_evaluation=is_evaluation,
    )
    manifest.save(folder)
    return manifest
