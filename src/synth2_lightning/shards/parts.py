"""One Parquet file of a folder of shards: its columns, and what its footer tells without reading it."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synth2_lightning.shards.manifest import TokenFormat

_FORMAT = b"synth2_tokens"


def part_name(rank: int, number: int) -> str:
    """Name of a part; ranks write side by side without asking each other."""
    return f"part-{rank:05d}-{number:05d}.parquet"


def list_parts(folder: Path) -> list[Path]:
    """Finished parts in the order of their names."""
    return sorted(folder.glob("part-*.parquet"))


def make_schema(tokens: TokenFormat) -> pa.Schema:
    """Columns of a part; the format of the tokens travels in the file, so that a part explains itself."""
    return pa.schema(
        [
            ("key", pa.string()),
            ("source", pa.string()),
            ("captions", pa.list_(pa.string())),
            ("tokens", pa.list_(pa.uint16(), tokens.row_length)),
        ],
        metadata={_FORMAT: json.dumps(asdict(tokens)).encode()},
    )


def read_footer(part: Path) -> pq.FileMetaData:
    """Read what a part says of itself.

    Raises:
        ValueError: If it is no Parquet file, or a damaged one.
    """
    try:
        return pq.read_metadata(part)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{part} is no readable Parquet file ({error}). Delete it and its folder's manifest.json, and run the "
            "command that wrote the shards again: it makes what is missing."
        ) from error


def read_format(part: Path) -> TokenFormat:
    """Read the format of the tokens of a part.

    Raises:
        ValueError: If the part does not tell: another program wrote it.
    """
    metadata = read_footer(part).schema.to_arrow_schema().metadata or {}
    if _FORMAT not in metadata:
        raise ValueError(
            f"{part} does not say which codebook its tokens speak, so this package did not write it. Expected parts "
            "of ShardWriter only; move the file elsewhere."
        )
    return TokenFormat(**json.loads(metadata[_FORMAT]))


def read_keys(part: Path) -> Iterator[tuple[str, str]]:
    """Source and key of every row."""
    table = pq.read_table(part, columns=["source", "key"])
    return zip(table["source"].to_pylist(), table["key"].to_pylist(), strict=True)


def list_sources(folder: Path) -> list[str]:
    """Names of all sources in the parts of a folder, sorted."""
    names: set[str] = set()
    for part in list_parts(folder):
        names.update(pc.unique(pq.read_table(part, columns=["source"])["source"]).to_pylist())
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
                ids = pq.read_table(part, columns=["tokens"])["tokens"].combine_chunks().flatten()
                return int(pc.max(ids).as_py())
            largest = max(largest, column.statistics.max)
    return largest
