"""Manifest of a shard folder: written last, so that a folder with a manifest is complete."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from zlib import crc32

from synth2_lightning.io.atomic import write_atomically
from synth2_lightning.io.json_text import parse_json

SCHEMA_VERSION = 1
FILE_NAME = "manifest.json"
_MAX_CODEBOOK_SIZE = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFormat:
    """Codebook and shape of the image tokens in a shard.

    Args:
        codebook: Fingerprint of the codebook that the ids belong to.
        codebook_size: Number of codes per level, from 1 to 2**16.
        num_tokens: N, positions per image.
        num_levels: L, codes per position.

    Raises:
        ValueError: If the ids of the codebook do not fit into 16 bits.

    Example:
        >>> TokenFormat(codebook="vqgan-512:1f3c9a02", codebook_size=512, num_tokens=64, num_levels=2).row_length
        128
    """

    codebook: str
    codebook_size: int
    num_tokens: int
    num_levels: int

    def __post_init__(self) -> None:
        if not 1 <= self.codebook_size <= _MAX_CODEBOOK_SIZE:
            raise ValueError(
                f"Codebook {self.codebook!r} has {self.codebook_size} codes; shards hold ids from 0 to "
                f"{_MAX_CODEBOOK_SIZE - 1} only. Use a codebook of 1 to {_MAX_CODEBOOK_SIZE} codes per level."
            )

    @property
    def row_length(self) -> int:
        """Ids per image."""
        return self.num_tokens * self.num_levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Contents and origin of a shard folder.

    Args:
        tokens: Format of the tokens.
        parts: Number of rows of each Parquet file, by its name.
        provenance: Origin of the shards, informative only.
        footers: CRC-32 of each part's footer, by its name; Parquet stores checksums of pages only.
        digests: SHA-256 of each part, by its name; they name the cached copy of the shards.
        is_evaluation: Whether the records come from an evaluation split, which must not be trained on.
    """

    tokens: TokenFormat
    parts: dict[str, int]
    provenance: dict[str, Any]
    footers: dict[str, int]
    digests: dict[str, str]
    is_evaluation: bool = False

    @property
    def num_records(self) -> int:
        """Number of rows of all parts."""
        return sum(self.parts.values())

    def save(self, folder: Path) -> None:
        """Write ``manifest.json`` atomically."""
        content = {
            "schema_version": SCHEMA_VERSION,
            **asdict(self.tokens),
            "num_records": self.num_records,
            "parts": self.parts,
            "footers": self.footers,
            "digests": self.digests,
            "is_evaluation": self.is_evaluation,
            "provenance": self.provenance,
        }
        content["checksum"] = _checksum(content)
        write_atomically(folder / FILE_NAME, lambda path: path.write_text(json.dumps(content, indent=2) + "\n"))

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Return the checked manifest of a folder.

        Raises:
            FileNotFoundError: If the folder has no ``manifest.json``, or is a caption set.
            ValueError: If it is damaged or has another schema version.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} has no {FILE_NAME}, so it is not a finished shard folder. Expected the output of `synth2 "
                "predict --config tokenize.yaml`; if that run was interrupted, run it again to resume it."
            )
        try:
            content = parse_json(path.read_bytes())
            if "num_kept" in content:
                raise FileNotFoundError(
                    f"{folder} is a caption set, without image tokens; expected a shard folder. Generate image tokens "
                    "for its captions: `synth2 predict --config synthesize.yaml` with a CaptionTable of "
                    f"{folder / 'captions.parquet'}."
                )
            version = content["schema_version"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is damaged ({error!r}). {_REMEDY}") from error
        if version != SCHEMA_VERSION:
            provenance = content.get("provenance")
            writer = provenance.get("synth2_lightning") if isinstance(provenance, dict) else None
            raise ValueError(
                f"{path} has schema version {version!r}; expected version {SCHEMA_VERSION}. Use the package version "
                f"that wrote it ({writer or 'not recorded'}), or create the shards again."
            )
        try:
            manifest = cls(
                tokens=TokenFormat(**{each.name: content[each.name] for each in fields(TokenFormat)}),
                parts={str(name): int(rows) for name, rows in content["parts"].items()},
                provenance=dict(content["provenance"]),
                is_evaluation=bool(content["is_evaluation"]),
                footers={str(name): int(checksum) for name, checksum in content["footers"].items()},
                digests={str(name): str(digest) for name, digest in content["digests"].items()},
            )
            num_records, checksum = content["num_records"], content["checksum"]
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path} is damaged ({error!r}). {_REMEDY}") from error
        if manifest.num_records != num_records:
            raise ValueError(
                f"{path} is damaged: its parts have {manifest.num_records} rows, but num_records is {num_records}. "
                f"{_REMEDY}"
            )
        if checksum != _checksum(content):
            raise ValueError(f"{path} is damaged: its checksum differs. {_REMEDY}")
        return manifest


def _checksum(content: Mapping[str, object]) -> int:
    return crc32(json.dumps({key: value for key, value in content.items() if key != "checksum"}).encode())


_REMEDY = (
    "Expected it unchanged. Delete the file and create it again with `synth2 predict --config tokenize.yaml`, which "
    "keeps finished parts."
)
