"""Resumable writing of token shards."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from synth2_lightning.io.atomic import write_atomically
from synth2_lightning.io.fingerprints import fingerprint_file
from synth2_lightning.io.parquet import write_parquet
from synth2_lightning.shards.data_card import CARD, write_data_card
from synth2_lightning.shards.manifest import FILE_NAME, Manifest, TokenFormat
from synth2_lightning.shards.part_writer import PartWriter
from synth2_lightning.shards.parts import (
    checksum_footer,
    describe_repeated,
    find_repeated,
    list_parts,
    make_schema,
    read_footer,
    read_header,
    read_part,
    remove_drafts,
)
from synth2_lightning.shards.settings import check_same_settings
from synth2_lightning.types import TokenizedImages

_logger = logging.getLogger(__name__)


class _Row(NamedTuple):
    key: str
    source: str
    captions: tuple[str, ...]
    tokens: NDArray[np.uint16]
    class_name: str
    seed: int | None
    scores: tuple[float, ...] | None


class ShardWriter(PartWriter[_Row]):
    """Appends tokenized images to a folder of Parquet parts; images that the folder has already are ignored.

    Several ranks may write to one folder at the same time. After all of them have closed, one rank calls
    :func:`finish`. The arguments are those of :class:`PartWriter`.

    Example:
        >>> import tempfile
        >>> from synth2_lightning.types import SampleInfo, VQTokens
        >>> tokens = VQTokens(torch.zeros(1, 64, 1, dtype=torch.long), "vqgan-512:1f3c9a02")
        >>> images = TokenizedImages((SampleInfo("7", "scenes"),), (("a red circle",),), tokens, codebook_size=512)
        >>> folder = Path(tempfile.mkdtemp())
        >>> writer = ShardWriter(folder)
        >>> writer.append(images), writer.append(images)
        (1, 0)
        >>> writer.close()
        >>> finish(folder, provenance={}).num_records
        1
    """

    summaries = (FILE_NAME, CARD)

    def __init__(self, folder: Path, rank: int = 0, records_per_part: int = 10_000) -> None:
        super().__init__(folder, rank, records_per_part)
        parts = list_parts(folder)
        self._format: TokenFormat | None = read_header(parts[0])[0] if parts else None

    def append(self, images: TokenizedImages) -> int:
        """Append the images that are new, and return their number.

        Raises:
            ValueError: If the token format differs from that of the folder, or ids are out of range.
            OSError: If a part cannot be written.
        """
        self._check(images)
        rows = images.tokens.ids.flatten(1).cpu().numpy().astype(np.uint16)
        scores = images.scores or (None,) * len(images)
        return self.add(
            _Row(sample.key, sample.source, captions, tokens, sample.class_name, sample.seed, row_scores)
            for sample, captions, tokens, row_scores in zip(images.samples, images.captions, rows, scores, strict=True)
        )

    def make_table(self, rows: Sequence[_Row], settings: Mapping[str, object]) -> pa.Table:
        """Return the table of a part."""
        assert self._format is not None, "append() sets the format"
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
                f"The new tokens have the format {given}, but {self.folder} has {self._format}. Expected one format "
                "per folder: choose another folder, or delete this one."
            )
        low, high = (int(bound) for bound in torch.aminmax(ids)) if ids.numel() else (0, 0)
        if low < 0 or high >= images.codebook_size:
            raise ValueError(
                f"The new tokens have ids from {low} to {high}; expected 0 to {images.codebook_size - 1}, the ids of "
                f"codebook {given.codebook!r}. Check the tokenizer that made them."
            )


def finish(folder: Path, provenance: Mapping[str, object], is_evaluation: bool = False) -> Manifest:
    """Write the manifest of all parts of a folder and return it; called once, after all writers have closed.

    Args:
        folder: Folder of the parts.
        provenance: Origin of the shards, informative only; the settings of the parts are added.
        is_evaluation: Whether the images come from an evaluation split.

    Raises:
        ValueError: If there is no part, the token formats or settings of the parts differ, or a part was copied.
    """
    parts = list_parts(folder)
    if not parts:
        raise ValueError(f"{folder} has no part, so no manifest can be written; expected at least one written image.")
    remove_drafts(folder)
    tokens, settings = read_header(parts[0])
    for part in parts:
        other_tokens, other_settings = read_header(part)
        if other_tokens != tokens:
            raise ValueError(
                f"{part} has the token format {other_tokens}, but {parts[0].name} has {tokens}. Expected one format "
                "per folder: delete the unwanted parts."
            )
        check_same_settings(part, other_settings, settings)
    parts = _drop_repeated(parts)
    manifest = Manifest(
        tokens=tokens,
        parts={part.name: read_footer(part).num_rows for part in parts},
        provenance={**provenance, "settings": settings},
        is_evaluation=is_evaluation,
        footers={part.name: checksum_footer(part) for part in parts},
        digests={part.name: fingerprint_file(part) for part in parts},
    )
    _write_card(folder, manifest)
    manifest.save(folder)
    return manifest


def _write_card(folder: Path, manifest: Manifest) -> None:
    tokens = manifest.tokens
    kind = " of an evaluation split, which must not be trained on" if manifest.is_evaluation else ""
    summary = f"Captions and image tokens of {manifest.num_records} images{kind}. There are no pixels."
    columns = (
        f"`tokens`: {tokens.num_tokens} positions in raster order, {tokens.num_levels} ids each, of the codebook "
        f"`{tokens.codebook}` with {tokens.codebook_size} codes per level",
        "`captions`: captions of the image; `scores`: agreement of each with the image, if they were scored",
        "`key`, `source`: id of the image, and the data set that it or its caption is from",
        "`class_name`, `seed`: what the caption was requested for, and the seed of the generator, if it was generated",
    )
    write_data_card(
        folder,
        summary,
        {"default": "part-*.parquet"},
        columns,
        manifest.provenance,
        "test" if manifest.is_evaluation else "train",
    )


def _drop_repeated(parts: Sequence[Path]) -> list[Path]:
    """Keep one copy of each record: two ranks may have replaced damaged photos by the same one."""
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
            raise ValueError(describe_repeated(record, repeated[record], len(repeated)))
        rest = table.filter(pa.array([each not in records for each in _list_records(table)]))
        if len(rest):
            write_atomically(part, partial(write_parquet, rest))
        else:
            part.unlink()
        _logger.info("Dropped %d records of %s that are also in an earlier part", len(records), part.name)
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
