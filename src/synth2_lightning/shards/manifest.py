"""The table of contents of a folder of shards: written last, so that a folder with a manifest is complete."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from zlib import crc32

from synth2_lightning.files import write_atomically
from synth2_lightning.jsontext import parse_json

# Since 2, a record has a class name and a seed, and a part says what made it. Since 3, a record may have a score per
# caption, and the manifest says whether the records are of an evaluation split.
SCHEMA_VERSION = 3
FILE_NAME = "manifest.json"
_MAX_CODEBOOK_SIZE = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFormat:
    """What the tokens of a shard are: which codebook they speak, and how many there are of one picture.

    Args:
        codebook: Fingerprint of the codebook.
        codebook_size: Number of codes of a level.
        num_tokens: N, positions per picture.
        num_levels: L, codes per position.

    Raises:
        ValueError: If an id of the codebook does not fit into the 16 bits that a shard gives it.

    Example:
        >>> TokenFormat(codebook="vqgan-512:1f3c9a02", codebook_size=512, num_tokens=64, num_levels=2).row_length
        128
    """

    codebook: str
    codebook_size: int
    num_tokens: int
    num_levels: int

    def __post_init__(self) -> None:
        """Refuse what the disk format cannot hold."""
        if not 1 <= self.codebook_size <= _MAX_CODEBOOK_SIZE:
            raise ValueError(
                f"Codebook {self.codebook!r} has {self.codebook_size} codes; shards hold ids from 0 to "
                f"{_MAX_CODEBOOK_SIZE - 1} only. Use a codebook of 1 to {_MAX_CODEBOOK_SIZE} codes per level."
            )

    @property
    def row_length(self) -> int:
        """Ids per picture."""
        return self.num_tokens * self.num_levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a folder of shards holds and where it came from.

    Args:
        tokens: Format of the tokens.
        parts: Name of every Parquet file and its number of rows.
        provenance: What made the shards, for people; nothing is decided by it.
        is_evaluation: Whether the records are known to come from an evaluation split: nothing may be learnt from them.
        footers: Checksum of every part's footer, by its name; its pages bring their own. Earlier folders have none.
        digests: SHA-256 of every part, by its name: what the copies that are read are named after. Earlier folders have
            none.

    Example:
        >>> tokens = TokenFormat(codebook="vqgan-512:1f3c9a02", codebook_size=512, num_tokens=64, num_levels=1)
        >>> Manifest(tokens=tokens, parts={"part-00000-00000.parquet": 20}, provenance={}).num_records
        20
    """

    tokens: TokenFormat
    parts: dict[str, int]
    provenance: dict[str, Any]
    is_evaluation: bool = False
    footers: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def num_records(self) -> int:
        """Rows over all parts."""
        return sum(self.parts.values())

    def save(self, folder: Path) -> None:
        """Write ``manifest.json``."""
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
        """Read ``manifest.json``.

        Raises:
            FileNotFoundError: If the folder has none.
            ValueError: If it is damaged or of another schema version.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} has no {FILE_NAME}, so it is no finished folder of shards. Expected what `synth2 predict "
                "--config tokenize.yaml` writes; if that was interrupted, run it again: it goes on where it stopped."
            )
        try:
            content = parse_json(path.read_bytes())
            version = content["schema_version"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is damaged ({error!r}). {_WAY_OUT}") from error
        if version not in range(1, SCHEMA_VERSION + 1):
            writer = content.get("provenance", {}).get("synth2_lightning", "not recorded")
            raise ValueError(
                f"{path} has schema version {version!r}; this package reads versions 1 to {SCHEMA_VERSION}. Use the "
                f"package version that wrote it ({writer}), or make the shards again."
            )
        try:
            manifest = cls(
                tokens=TokenFormat(**{each.name: content[each.name] for each in fields(TokenFormat)}),
                parts={str(name): int(rows) for name, rows in content["parts"].items()},
                provenance=dict(content["provenance"]),
                is_evaluation=bool(content.get("is_evaluation", False)),  # earlier versions do not know
                footers={str(name): int(checksum) for name, checksum in content.get("footers", {}).items()},
                digests={str(name): str(digest) for name, digest in content.get("digests", {}).items()},
            )
            num_records = content["num_records"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error!r}). {_WAY_OUT}") from error
        if manifest.num_records != num_records:
            raise ValueError(
                f"{path} is damaged: its parts have {manifest.num_records} rows, it says {num_records}. {_WAY_OUT}"
            )
        if "checksum" in content and content["checksum"] != _checksum(content):  # earlier versions have none
            raise ValueError(f"{path} is damaged: it is not as it was written. {_WAY_OUT}")
        return manifest


def _checksum(content: dict[str, Any]) -> int:
    return crc32(json.dumps({key: value for key, value in content.items() if key != "checksum"}).encode())


_WAY_OUT = "Delete the file and make it again with `synth2 predict --config tokenize.yaml`, which keeps finished parts."
