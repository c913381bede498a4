"""Parquet parts of a folder: names, columns, settings in the footer, and checks."""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synth2_lightning.io.json_text import parse_json
from synth2_lightning.io.parquet import open_parquet, read_parquet
from synth2_lightning.shards.manifest import TokenFormat

_FORMAT = b"synth2_tokens"
_SETTINGS = b"synth2_settings"
REMEDY = (
    "Expected it unchanged. Delete it and its folder's manifest.json, and run the command that wrote the shards again: "
    "it creates missing parts only."
)


def part_name(rank: int, number: int) -> str:
    """Return the file name of a part; it contains the rank, so that ranks write independently."""
    return f"{name_writer(rank)}-{number:05d}.parquet"


def name_writer(rank: int) -> str:
    """Return the prefix of the names of a rank's parts and of its lock.

    Example:
        >>> name_writer(3)
        'part-00003'
    """
    return f"part-{rank:05d}"


def list_locked(folder: Path) -> list[Path]:
    """Return the locked paths of all writers in a folder, including those of killed processes.

    Example:
        >>> list_locked(Path("gone"))
        []
    """
    return sorted(lock.with_name(lock.name[1:].removesuffix(".lock")) for lock in folder.glob(".part-?????.lock"))


def list_parts(folder: Path) -> list[Path]:
    """Return the finished parts in the order of their names."""
    return sorted(folder.glob("part-*.parquet"))


def remove_drafts(folder: Path) -> None:
    """Remove unfinished parts and locks of killed writers; must not be called while a writer is active."""
    for pattern in ("part-*.parquet.tmp", ".part-*.parquet.lock"):
        for draft in folder.glob(pattern):
            draft.unlink(missing_ok=True)


def make_schema(tokens: TokenFormat, settings: Mapping[str, Any]) -> pa.Schema:
    """Return the schema of a part; its metadata has the token format and the settings, which precede the manifest."""
    return pa.schema(
        [
            ("key", pa.string()),
            ("source", pa.string()),
            ("captions", pa.list_(pa.string())),
            ("tokens", pa.list_(pa.uint16(), tokens.row_length)),
            ("class_name", pa.string()),
            ("seed", pa.int64()),
            ("scores", pa.list_(pa.float32())),
        ],
        metadata={_FORMAT: json.dumps(asdict(tokens)).encode(), **describe_settings(settings)},
    )


def describe_settings(settings: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Return the schema metadata with the settings of a part."""
    return {_SETTINGS: json.dumps(settings).encode()}


def read_footer(part: Path) -> pq.FileMetaData:
    """Return the footer of a part.

    Raises:
        ValueError: If it is not a Parquet file, or is damaged.
    """
    with open_parquet(part, REMEDY) as file:
        return file.metadata


def checksum_footer(part: Path) -> int:
    """Return the CRC-32 of a part's footer; Parquet stores checksums of pages only.

    Raises:
        ValueError: If it is not a Parquet file.
    """
    read_footer(part)
    with part.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, os.SEEK_END)
        return crc32(file.read(length))


def read_header(part: Path) -> tuple[TokenFormat, dict[str, Any]]:
    """Return the token format and the settings of a part.

    Raises:
        ValueError: If the part does not contain them, because another program wrote it.
    """
    metadata = read_footer(part).schema.to_arrow_schema().metadata or {}
    if _FORMAT not in metadata:
        raise ValueError(
            f"{part} does not contain the codebook of its tokens, so this package did not write it. Expected parts "
            "of ShardWriter only; move the file elsewhere."
        )
    try:
        return TokenFormat(**parse_json(metadata[_FORMAT])), read_settings(part)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{part} is damaged ({error!r}). {REMEDY}") from error


def read_settings(part: Path) -> dict[str, Any]:
    """Return the settings of a part.

    Raises:
        ValueError: If the part does not contain them, because another program wrote it.
    """
    metadata = read_footer(part).schema.to_arrow_schema().metadata or {}
    if _SETTINGS not in metadata:
        raise ValueError(
            f"{part} does not contain its settings, so this package did not write it. Expected parts of `synth2 "
            "predict` only; move the file elsewhere, or choose another folder."
        )
    try:
        return dict(parse_json(metadata[_SETTINGS]))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{part} is damaged ({error!r}). {REMEDY}") from error


def read_part(part: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a part; ``None`` reads all columns.

    Raises:
        ValueError: If the part is damaged.
    """
    return read_parquet(part, columns, REMEDY)


def read_keys(part: Path) -> Iterator[tuple[str, str]]:
    """Return source and key of each row."""
    table = read_part(part, ["source", "key"])
    return zip(table["source"].to_pylist(), table["key"].to_pylist(), strict=True)


def find_repeated(parts: Sequence[Path]) -> dict[tuple[str, str], list[Path]]:
    """Return the repeated records, by source and key, each with the parts of all its occurrences.

    Memory holds 8 bytes per record, and more for repeated ones only.

    Raises:
        ValueError: If a part is damaged.
    """
    if not parts:
        return {}
    hashes, counts = np.unique(np.concatenate([_hash_keys(part) for part in parts]), return_counts=True)
    suspects = hashes[counts > 1]
    occurrences: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for part in parts if len(suspects) else ():
        is_suspect = np.isin(_hash_keys(part), suspects).tolist()
        for record, is_repeated in zip(read_keys(part), is_suspect, strict=True):
            if is_repeated:
                occurrences[record].append(part)
    return {record: found for record, found in occurrences.items() if len(found) > 1}


def _hash_keys(part: Path) -> np.ndarray[Any, np.dtype[np.uint64]]:
    digests = b"".join(blake2b("\0".join(record).encode(), digest_size=8).digest() for record in read_keys(part))
    return np.frombuffer(digests, np.uint64)


def check_no_repeated(parts: Sequence[Path]) -> None:
    """Check that each record occurs once, which is not so after a part was copied.

    Raises:
        ValueError: If a record is repeated, with the names of the parts.
    """
    if repeated := find_repeated(parts):
        record, found = next(iter(repeated.items()))
        raise ValueError(describe_repeated(record, found, len(repeated)))


def describe_repeated(record: tuple[str, str], found: Sequence[Path], num_repeated: int) -> str:
    """Return the error message for repeated records.

    Example:
        >>> describe_repeated(("coco", "7"), [Path("out/a.parquet"), Path("out/b.parquet")], 1)
        "'7' of source 'coco' is in a.parquet and in b.parquet of out (repeated records: 1); expected every record..."
    """
    names = " and in ".join(part.name for part in found)
    return (
        f"{record[1]!r} of source {record[0]!r} is in {names} of {found[0].parent} (repeated records: {num_repeated}); "
        "expected every record once. A part was probably copied into this folder: move it away, delete the folder's "
        "manifest.json, and run the command that wrote the parts again."
    )


def list_sources(folder: Path) -> list[str]:
    """Return the sorted names of all sources in the parts of a folder."""
    names: set[str] = set()
    for part in list_parts(folder):
        names.update(pc.unique(read_part(part, ["source"])["source"]).to_pylist())
    return sorted(names)


def largest_id(part: Path) -> int:
    """Return the largest token id of a part, from the footer's statistics or, without these, from the column."""
    footer = read_footer(part)
    largest = 0
    for group in range(footer.num_row_groups):
        for number in range(footer.num_columns):
            column = footer.row_group(group).column(number)
            if not column.path_in_schema.startswith("tokens."):
                continue
            if not column.statistics or not column.statistics.has_min_max:
                ids = read_part(part, ["tokens"])["tokens"].combine_chunks().flatten()
                return int(pc.max(ids).as_py())
            largest = max(largest, column.statistics.max)
    return largest
