"""One Parquet file of a folder: its columns where it holds tokens, and what its footer tells without reading it."""

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

from synth2_lightning.jsontext import parse_json
from synth2_lightning.parquet import open_parquet, read_parquet
from synth2_lightning.shards.manifest import TokenFormat

_FORMAT = b"synth2_tokens"
_SETTINGS = b"synth2_settings"
WAY_OUT = (
    "Delete it and its folder's manifest.json, and run the command that wrote the shards again: it makes what is "
    "missing."
)


def part_name(rank: int, number: int) -> str:
    """Name of a part; ranks write side by side without asking each other."""
    return f"{name_writer(rank)}-{number:05d}.parquet"


def name_writer(rank: int) -> str:
    """Beginning of the names of a rank's parts, which the lock of its writer is called after.

    Example:
        >>> name_writer(3)
        'part-00003'
    """
    return f"part-{rank:05d}"


def list_locked(folder: Path) -> list[Path]:
    """Paths after which writers in a folder have named their locks, those of killed ones among them.

    Example:
        >>> list_locked(Path("gone"))
        []
    """
    return sorted(lock.with_name(lock.name[1:].removesuffix(".lock")) for lock in folder.glob(".part-?????.lock"))


def list_parts(folder: Path) -> list[Path]:
    """Finished parts in the order of their names."""
    return sorted(folder.glob("part-*.parquet"))


def remove_drafts(folder: Path) -> None:
    """Remove what killed writers left behind: parts that were never finished. No writer may be at work."""
    for pattern in ("part-*.parquet.tmp", ".part-*.parquet.lock"):
        for draft in folder.glob(pattern):
            draft.unlink(missing_ok=True)


def make_schema(tokens: TokenFormat, settings: Mapping[str, Any]) -> pa.Schema:
    """Columns of a part.

    The format of the tokens and the settings that made them travel in the file, so that a part explains itself before
    there is a manifest.
    """
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
    """Metadata of a part that say what made it."""
    return {_SETTINGS: json.dumps(settings).encode()}


def read_footer(part: Path) -> pq.FileMetaData:
    """Read what a part says of itself.

    Raises:
        ValueError: If it is no Parquet file, or a damaged one.
    """
    with open_parquet(part, WAY_OUT) as file:
        return file.metadata


def checksum_footer(part: Path) -> int:
    """Compute the CRC-32 of a part's footer, which Parquet itself protects by none, unlike its pages.

    Raises:
        ValueError: If it is no Parquet file.
    """
    read_footer(part)
    with part.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, os.SEEK_END)
        return crc32(file.read(length))


def read_header(part: Path) -> tuple[TokenFormat, dict[str, Any]]:
    """Read the format of the tokens of a part, and the settings that made them.

    Raises:
        ValueError: If the part does not tell: another program, or an older version of this one, wrote it.
    """
    metadata = read_footer(part).schema.to_arrow_schema().metadata or {}
    if _FORMAT not in metadata:
        raise ValueError(
            f"{part} does not say which codebook its tokens speak, so this package did not write it. Expected parts "
            "of ShardWriter only; move the file elsewhere."
        )
    try:
        return TokenFormat(**parse_json(metadata[_FORMAT])), read_settings(part)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{part} is damaged ({error!r}). {WAY_OUT}") from error


def read_settings(part: Path) -> dict[str, Any]:
    """Read the settings that made a part.

    Raises:
        ValueError: If the part does not tell: another program, or an older version of this one, wrote it.
    """
    metadata = read_footer(part).schema.to_arrow_schema().metadata or {}
    if _SETTINGS not in metadata:
        raise ValueError(
            f"{part} does not say with which settings it was made, because another program or an older version of this "
            "package wrote it. It can be read, but nothing can be added to its folder: choose another."
        )
    try:
        return dict(parse_json(metadata[_SETTINGS]))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{part} is damaged ({error!r}). {WAY_OUT}") from error


def read_part(part: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of a part, all columns or some.

    Raises:
        ValueError: If it is damaged.
    """
    return read_parquet(part, columns, WAY_OUT)


def read_keys(part: Path) -> Iterator[tuple[str, str]]:
    """Source and key of every row."""
    table = read_part(part, ["source", "key"])
    return zip(table["source"].to_pylist(), table["key"].to_pylist(), strict=True)


def find_repeated(parts: Sequence[Path]) -> dict[tuple[str, str], list[Path]]:
    """Find records, by source and key, that parts hold more than once, with the part of each time.

    Memory takes 8 bytes a record, and more of those only that are repeated.

    Raises:
        ValueError: If a part is damaged.
    """
    if not parts:
        return {}
    hashes, counts = np.unique(np.concatenate([_hash_keys(part) for part in parts]), return_counts=True)
    suspects = hashes[counts > 1]
    places: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for part in parts if len(suspects) else ():
        is_suspect = np.isin(_hash_keys(part), suspects).tolist()
        for record, is_repeated in zip(read_keys(part), is_suspect, strict=True):
            if is_repeated:
                places[record].append(part)
    return {record: found for record, found in places.items() if len(found) > 1}


def _hash_keys(part: Path) -> np.ndarray[Any, np.dtype[np.uint64]]:
    digests = b"".join(blake2b("\0".join(record).encode(), digest_size=8).digest() for record in read_keys(part))
    return np.frombuffer(digests, np.uint64)


def refuse_repeated(parts: Sequence[Path]) -> None:
    """Refuse parts that hold a record more than once, as where one was copied.

    Raises:
        ValueError: If they do, with the names of the parts.
    """
    if repeated := find_repeated(parts):
        record, found = next(iter(repeated.items()))
        raise ValueError(tell_repeated(record, found, len(repeated)))


def tell_repeated(record: tuple[str, str], found: Sequence[Path], num_repeated: int) -> str:
    """Say that records are in parts more than once.

    Example:
        >>> tell_repeated(("coco", "7"), [Path("out/a.parquet"), Path("out/b.parquet")], 1)
        "'7' of source 'coco' is in a.parquet and in b.parquet of out (repeated records: 1); expected every record..."
    """
    names = " and in ".join(part.name for part in found)
    return (
        f"{record[1]!r} of source {record[0]!r} is in {names} of {found[0].parent} (repeated records: {num_repeated}); "
        "expected every record once. A part was copied here, or comes from another folder: move the one that does not "
        "belong here away, delete the folder's manifest.json, and run the command that wrote it again."
    )


def list_sources(folder: Path) -> list[str]:
    """Names of all sources in the parts of a folder, sorted."""
    names: set[str] = set()
    for part in list_parts(folder):
        names.update(pc.unique(read_part(part, ["source"])["source"]).to_pylist())
    return sorted(names)


def largest_id(part: Path) -> int:
    """Largest token id of a part: from the footer's statistics, or by reading the column where there are none."""
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
