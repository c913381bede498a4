"""Write token shards: kill it at any moment, start it again, and it goes on."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from synth2_lightning.files import write_atomically
from synth2_lightning.fingerprints import fingerprint_file
from synth2_lightning.parquet import write_parquet
from synth2_lightning.shards.manifest import FILE_NAME, Manifest, TokenFormat
from synth2_lightning.shards.part_writer import PartWriter
from synth2_lightning.shards.parts import (
    checksum_footer,
    find_repeated,
    list_parts,
    make_schema,
    read_footer,
    read_header,
    read_part,
    remove_drafts,
    tell_repeated,
)
from synth2_lightning.shards.settings import refuse_other_settings
from synth2_lightning.types import TokenizedImages

_logger = logging.getLogger(__name__)


class _Row(NamedTuple):
    key: str
    source: str
    captions: tuple[str, ...]
    tokens: np.ndarray[Any, np.dtype[np.uint16]]
    class_name: str | None
    seed: int | None
    scores: tuple[float, ...] | None


class ShardWriter(PartWriter[_Row]):
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

    summaries = (FILE_NAME,)

    def __init__(self, folder: Path, rank: int = 0, records_per_part: int = 10_000) -> None:
        super().__init__(folder, rank, records_per_part)
        parts = list_parts(folder)
        self._format: TokenFormat | None = read_header(parts[0])[0] if parts else None

    def append(self, images: TokenizedImages) -> int:
        """Add those pictures that are not there yet, and return how many those are.

        Raises:
            ValueError: If the tokens are of another format than those that the folder holds, or out of range.
            OSError: If a part is full and cannot be written.
        """
        self._check(images)
        rows = images.tokens.ids.flatten(1).cpu().numpy().astype(np.uint16)
        nothing = (None,) * len(images)
        columns = (images.keys, images.sources, images.captions, rows)
        optional = (images.class_names or nothing, images.seeds or nothing, images.scores or nothing)
        return self.add(_Row(*values) for values in zip(*columns, *optional, strict=True))

    def make_table(self, rows: Sequence[_Row], settings: Mapping[str, Any]) -> pa.Table:
        """Make a part of pictures."""
        assert self._format is not None, "append() sets the format before there is a record"
        keys, sources, captions, tokens, class_names, seeds, scores = zip(*rows, strict=True)
        return pa.table(
            {
                "key": keys,
                "source": sources,
                "captions": captions,
                "tokens": pa.FixedSizeListArray.from_arrays(np.concatenate(tokens), self._format.row_length),
                "class_name": [name or None for name in class_names],
                "seed": seeds,
                "scores": scores,
            },
            schema=make_schema(self._format, settings),
        )

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


def finish(folder: Path, provenance: dict[str, Any], is_evaluation: bool = False) -> Manifest:
    """Write the manifest over all parts of a folder; to be called once, when every writer has closed.

    Args:
        folder: Where the parts are.
        provenance: What made them, for people; the settings that the parts carry are added.
        is_evaluation: Whether they come from an evaluation split.

    Raises:
        ValueError: If there is no part, the parts are of several formats, or made with several settings, or one of them
            was copied here.
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
    parts = _drop_repeated(parts)
    manifest = Manifest(
        tokens=tokens,
        parts={part.name: read_footer(part).num_rows for part in parts},
        provenance={**provenance, "settings": settings},
        is_evaluation=is_evaluation,
        footers={part.name: checksum_footer(part) for part in parts},
        digests={part.name: fingerprint_file(part) for part in parts},
    )
    manifest.save(folder)
    return manifest


def _drop_repeated(parts: Sequence[Path]) -> list[Path]:
    """Keep every record once: two ranks may have replaced damaged photographs by the same one.

    Raises:
        ValueError: If the same record is not the same in both parts, or all of several records are in others, too.
    """
    repeated = find_repeated(parts)
    later: dict[Path, set[tuple[str, str]]] = defaultdict(set)
    for record, found in repeated.items():
        for part in found[1:]:
            later[part].add(record)
    num_repeated = Counter(part for found in repeated.values() for part in set(found))
    copies = {part for part, number in num_repeated.items() if 1 < number == read_footer(part).num_rows}
    for part, records in later.items():
        table = read_part(part)
        record = min(records)
        first = repeated[record][0]
        if first == part or {first, part} & copies or not _are_same(table, records, repeated):
            raise ValueError(tell_repeated(record, repeated[record], len(repeated)))
        rest = table.filter(pa.array([each not in records for each in _list_records(table)]))
        if len(rest):
            write_atomically(part, partial(write_parquet, rest))
        else:
            part.unlink()
        _logger.info("%d records of %s are in an earlier part, too, and were dropped from it", len(records), part.name)
    return [part for part in parts if part.exists()]


def _are_same(
    table: pa.Table, records: Iterable[tuple[str, str]], repeated: Mapping[tuple[str, str], Sequence[Path]]
) -> bool:
    rows = dict(zip(_list_records(table), range(len(table)), strict=True))
    for record in records:
        other = read_part(repeated[record][0])
        row = _list_records(other).index(record)
        if table.slice(rows[record], 1).to_pylist() != other.slice(row, 1).to_pylist():
            return False
    return True


def _list_records(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table["source"].to_pylist(), table["key"].to_pylist(), strict=True))
