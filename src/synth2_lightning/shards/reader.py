"""Read token shards through the ``datasets`` library: memory-mapped, by batches of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from synth2_lightning.files import lock_file, write_atomically
from synth2_lightning.fingerprints import fingerprint_captions, fingerprint_file, fingerprint_texts
from synth2_lightning.locations import resolve
from synth2_lightning.parquet import open_parquet, read_batches
from synth2_lightning.shards.manifest import Manifest
from synth2_lightning.shards.parts import checksum_footer, largest_id, list_parts, read_footer, refuse_repeated
from synth2_lightning.types import TokenizedImages, VQTokens


class ShardReader:
    """A finished folder of shards. Constructing it is cheap; ``load()`` checks every part and maps it.

    The rows lie in the ``datasets`` cache as Arrow, written once by whichever process comes first, and are mapped from
    there by all others: a batch costs neither a copy of the shard nor a Python object per id. The copy is named after
    the content of the parts: shards that were made anew are read anew, whatever their names and times, and the same
    shards in another place are not copied again.

    Args:
        folder: What :func:`synth2_lightning.shards.writer.finish` finished.
        limit: Keep the first rows only; all of them if ``None``.

    Raises:
        ValueError: If the limit is below one.

    Example:
        >>> ShardReader("shards/coco", limit=1000).limit
        1000
    """

    def __init__(self, folder: str | Path, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"ShardReader got limit={limit}; expected 1 or more rows, or none for all of them.")
        self.folder = folder
        self.limit = limit
        self._rows: Any = None
        self._manifest: Manifest | None = None

    @property
    def manifest(self) -> Manifest:
        """The folder's table of contents.

        Raises:
            RuntimeError: If it was not loaded yet.
        """
        if self._manifest is None:
            raise RuntimeError(f"The shards {str(self.folder)!r} were used before load(); call load() first.")
        return self._manifest

    def load(self) -> None:
        """Check the parts against the manifest and map them; the second call does nothing.

        Raises:
            FileNotFoundError: If the folder, its manifest or a part is missing.
            ValueError: If a part is not what the manifest says.
            OSError: If the cache cannot be written.
        """
        if self._manifest is not None:
            return
        folder = resolve(self.folder, "folder of shards")
        manifest = Manifest.read(folder)
        _check_parts(folder, manifest)
        self._rows = _map_parts(folder, manifest)
        if self.limit is not None:
            self._rows = self._rows.select(range(min(self.limit, len(self._rows))))
        self._manifest = manifest

    def __len__(self) -> int:
        """Number of rows."""
        return min(self.manifest.num_records, self.limit or self.manifest.num_records)

    def count_captions(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Number of captions of every row."""
        self.manifest  # noqa: B018  # refuses use before load()
        return np.asarray(pc.list_value_length(self._rows[:]["captions"]), dtype=np.int64)

    def fingerprint(self) -> str:
        """Checksum of keys and captions, and of the parts' footers, which hold the places of all that is compressed."""
        texts = self._rows.select_columns(["key", "captions"])[:]
        footers = self.manifest.footers
        if not footers:  # a manifest of an earlier version
            folder = resolve(self.folder, "folder of shards")
            footers = {name: checksum_footer(folder / name) for name in self.manifest.parts}
        parts = crc32(repr((self.manifest.tokens, sorted(footers.items()))).encode())
        return f"{fingerprint_captions(texts['key'], texts['captions'])}-{parts:08x}"

    def read(self, indices: Sequence[int]) -> TokenizedImages:
        """Read rows in the given order; a row may be asked for twice."""
        tokens = self.manifest.tokens
        rows = self._rows[list(indices)]
        ids = rows["tokens"].combine_chunks().flatten().to_numpy().astype(np.int64)
        return TokenizedImages(
            keys=tuple(rows["key"].to_pylist()),
            sources=tuple(rows["source"].to_pylist()),
            captions=tuple(tuple(captions) for captions in rows["captions"].to_pylist()),
            tokens=VQTokens(
                torch.from_numpy(ids).view(len(rows), tokens.num_tokens, tokens.num_levels), tokens.codebook
            ),
            codebook_size=tokens.codebook_size,
        )

    def read_whole(self, indices: Sequence[int]) -> TokenizedImages:
        """Read rows with all that the folder knows of them: class names, seeds and scores, too."""
        rows = self._rows[list(indices)]
        optional: list[list[Any]] = [
            rows[name].to_pylist() if name in rows.column_names else [None] * len(rows)
            for name in ("class_name", "seed", "scores")
        ]
        class_names, seeds, scores = optional
        return replace(
            self.read(indices),
            class_names=tuple(name or "" for name in class_names) if any(class_names) else (),
            seeds=() if None in seeds else tuple(seeds),
            scores=() if None in scores else tuple(map(tuple, scores)),
        )

    def read_keys(self) -> list[tuple[str, str]]:
        """Source and key of every row."""
        self.manifest  # noqa: B018  # refuses use before load()
        names = self._rows.select_columns(["source", "key"])[:]
        return list(zip(names["source"].to_pylist(), names["key"].to_pylist(), strict=True))

    def read_scores(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Scores of all captions of the first row, then of the second, and so on.

        Raises:
            ValueError: If a caption has no score.
        """
        num_captions = self.count_captions()
        scores = self._rows.select_columns(["scores"])[:]["scores"] if "scores" in self._rows.column_names else None
        if scores is None or scores.null_count or not np.array_equal(pc.list_value_length(scores), num_captions):
            raise ValueError(
                f"{self.folder} does not hold a score for each of its {num_captions.sum()} captions. Expected shards "
                "that `synth2 predict --config score.yaml` has written: score these and name the folder it writes, or "
                "learn from all by keep_share=1."
            )
        return np.asarray(pc.list_flatten(scores), dtype=np.float32)


def _check_parts(folder: Path, manifest: Manifest) -> None:
    present = {part.name for part in list_parts(folder)}
    if missing := manifest.parts.keys() - present:
        raise FileNotFoundError(f"{folder} lacks {sorted(missing)}, which its manifest names. {_WAY_OUT}")
    if extra := present - manifest.parts.keys():
        raise ValueError(f"{folder} holds {sorted(extra)}, which its manifest does not name. {_WAY_OUT}")
    for name, num_rows in manifest.parts.items():
        footer = read_footer(folder / name)
        if footer.num_rows != num_rows:
            raise ValueError(f"{folder / name} has {footer.num_rows} rows, its manifest says {num_rows}. {_WAY_OUT}")
        schema = footer.schema.to_arrow_schema()
        row_length = getattr(schema.field("tokens").type, "list_size", None) if "tokens" in schema.names else None
        if row_length != manifest.tokens.row_length:
            raise ValueError(
                f"{folder / name} has {row_length} ids per row, its manifest says {manifest.tokens.row_length}. "
                f"{_WAY_OUT}"
            )
        if (largest := largest_id(folder / name)) >= manifest.tokens.codebook_size:
            raise ValueError(
                f"{folder / name} holds the id {largest}, but codebook {manifest.tokens.codebook!r} has the ids 0 to "
                f"{manifest.tokens.codebook_size - 1}. {_WAY_OUT}"
            )
        if manifest.footers and checksum_footer(folder / name) != manifest.footers.get(name):
            raise ValueError(f"{folder / name} is damaged: its footer is not as it was written. {_WAY_OUT}")


def _map_parts(folder: Path, manifest: Manifest) -> Any:
    """Map the rows from a copy in Arrow's format, which is named after what the parts hold, and written if need be."""
    import datasets

    parts = [folder / name for name in manifest.parts]
    digests = manifest.digests or {part.name: fingerprint_file(part) for part in parts}
    name = fingerprint_texts(text for part in parts for text in (part.name, digests.get(part.name, "")))
    copy = Path(datasets.config.HF_DATASETS_CACHE) / "synth2_shards" / f"{name}.arrow"
    try:
        if not copy.is_file():
            with lock_file(copy.with_suffix(".copying"), seconds=-1.0):  # the others wait
                if not copy.is_file():
                    write_atomically(copy, partial(_copy_parts, parts, digests))
        return datasets.Dataset.from_file(str(copy)).with_format("arrow")
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{copy}, the copy of the shards in {folder} that is read, is damaged ({error}). Delete it; the next run "
            "makes it again."
        ) from error
    except OSError as error:
        raise OSError(
            f"The shards in {folder} cannot be mapped: {error}. Expected a cache folder that may be written, with room "
            f"for them (it is {datasets.config.HF_DATASETS_CACHE}); name another in HF_DATASETS_CACHE."
        ) from error


def _copy_parts(parts: Sequence[Path], digests: Mapping[str, str], copy: Path) -> None:
    refuse_repeated(parts)
    with open_parquet(parts[0], _WAY_OUT) as file:
        schema = pa.schema([field for field in file.schema_arrow if field.name in _COLUMNS])
    with pa.OSFile(str(copy), "wb") as out, pa.ipc.new_stream(out, schema) as writer:
        for part in parts:
            if fingerprint_file(part) != digests[part.name]:
                raise ValueError(f"{part} is damaged, or another: it is not the part that was written. {_WAY_OUT}")
            with open_parquet(part, _WAY_OUT) as file:
                if missing := set(schema.names) - set(file.schema_arrow.names):
                    raise ValueError(f"{part} has no column {sorted(missing)}, unlike {parts[0].name}. {_WAY_OUT}")
                for batch in read_batches(file, schema.names):
                    writer.write_batch(batch.cast(schema))


_WAY_OUT = "The folder was changed after it was finished: restore it, or make the shards again."
_COLUMNS = ("key", "source", "captions", "tokens", "class_name", "seed", "scores")
