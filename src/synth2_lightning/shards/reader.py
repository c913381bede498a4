"""Memory-mapped reading of token shards through the ``datasets`` library."""

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
from numpy.typing import NDArray

from synth2_lightning.interfaces import Loadable
from synth2_lightning.io.atomic import write_atomically
from synth2_lightning.io.fingerprints import fingerprint_captions, fingerprint_file, fingerprint_texts
from synth2_lightning.io.locations import resolve
from synth2_lightning.io.locks import lock_file
from synth2_lightning.io.parquet import open_parquet, read_batches
from synth2_lightning.shards.manifest import Manifest
from synth2_lightning.shards.parts import check_no_repeated, checksum_footer, largest_id, list_parts, read_footer
from synth2_lightning.types import SampleInfo, TokenizedImages, VQTokens


class ShardReader(Loadable):
    """Reader of a finished shard folder; ``load()`` checks and memory-maps all parts.

    The first process writes the rows as Arrow to the ``datasets`` cache; all processes map this copy, so that reading a
    batch neither copies the shard nor creates a Python object per id. The copy is named by the content of the parts:
    changed shards are read again, and the same shards in another folder use the same copy.

    Args:
        folder: Path or URL of a folder that :func:`synth2_lightning.shards.writer.finish` finished.
        limit: Maximum number of rows, from the first; ``None`` keeps all.

    Raises:
        FileNotFoundError: On ``load()``, if the folder, its manifest or a part is missing.
        OSError: On ``load()``, if the cache cannot be written.
        ValueError: If the limit is below 1, or on ``load()``, if a part differs from the manifest.
    """

    def __init__(self, folder: str | Path, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"ShardReader got limit={limit}; expected 1 or more rows, or null for all of them.")
        self.folder = folder
        self.limit = limit
        self._rows: Any = None
        self._manifest: Manifest | None = None

    @property
    def manifest(self) -> Manifest:
        """Manifest of the folder.

        Raises:
            RuntimeError: Before ``load()``.
        """
        if self._manifest is None:
            raise RuntimeError(f"The shards {str(self.folder)!r} were used before load(); call load() first.")
        return self._manifest

    def _load(self) -> None:
        """Check the parts against the manifest and map them into memory."""
        folder = resolve(self.folder, "folder of shards")
        manifest = Manifest.read(folder)
        _check_parts(folder, manifest)
        self._rows = _map_parts(folder, manifest)
        if self.limit is not None:
            self._rows = self._rows.select(range(min(self.limit, len(self._rows))))
        self._manifest = manifest

    def __len__(self) -> int:
        return min(self.manifest.num_records, self.limit or self.manifest.num_records)

    def count_captions(self) -> NDArray[np.int64]:
        """Return the number of captions of each row."""
        self.manifest  # noqa: B018  # raises before load()
        return np.asarray(pc.list_value_length(self._rows[:]["captions"]), dtype=np.int64)

    def fingerprint(self) -> str:
        """Return a checksum of keys and captions and of the parts' footers, which change with the compressed data."""
        texts = self._rows.select_columns(["key", "captions"])[:]
        parts = crc32(repr((self.manifest.tokens, sorted(self.manifest.footers.items()))).encode())
        return f"{fingerprint_captions(texts['key'], texts['captions'])}-{parts:08x}"

    def read(self, indices: Sequence[int]) -> TokenizedImages:
        """Return rows in the given order; indices may repeat."""
        tokens = self.manifest.tokens
        rows = self._rows[list(indices)]
        ids = rows["tokens"].combine_chunks().flatten().to_numpy().astype(np.int64)
        return TokenizedImages(
            samples=tuple(map(SampleInfo, rows["key"].to_pylist(), rows["source"].to_pylist())),
            captions=tuple(tuple(captions) for captions in rows["captions"].to_pylist()),
            tokens=VQTokens(
                torch.from_numpy(ids).view(len(rows), tokens.num_tokens, tokens.num_levels), tokens.codebook
            ),
            codebook_size=tokens.codebook_size,
        )

    def read_captions(self, indices: Sequence[int]) -> list[tuple[str, ...]]:
        """Return the captions of rows in the given order."""
        self.manifest  # noqa: B018  # raises before load()
        captions = self._rows.select_columns(["captions"])[list(indices)]["captions"]
        return list(map(tuple, captions.to_pylist()))

    def read_all_columns(self, indices: Sequence[int]) -> TokenizedImages:
        """Return rows in the given order, with class names, seeds and scores."""
        rows = self._rows[list(indices)]
        images = self.read(indices)
        class_names, seeds, scores = (rows[name].to_pylist() for name in ("class_name", "seed", "scores"))
        return replace(
            images,
            samples=tuple(
                replace(sample, class_name=class_name or "", seed=seed)
                for sample, class_name, seed in zip(images.samples, class_names, seeds, strict=True)
            ),
            scores=() if None in scores else tuple(map(tuple, scores)),
        )

    def read_columns(self, names: Sequence[str]) -> pa.Table:
        """Return columns of all rows."""
        self.manifest  # noqa: B018  # raises before load()
        table: pa.Table = self._rows.select_columns(list(names))[:]
        return table

    def read_keys(self) -> list[tuple[str, str]]:
        """Return source and key of each row."""
        names = self.read_columns(["source", "key"])
        return list(zip(names["source"].to_pylist(), names["key"].to_pylist(), strict=True))

    def read_scores(self) -> NDArray[np.float32]:
        """Return the scores of all captions, row by row.

        Raises:
            ValueError: If a caption has no score.
        """
        num_captions = self.count_captions()
        scores = self._rows.select_columns(["scores"])[:]["scores"]
        if scores.null_count or not np.array_equal(pc.list_value_length(scores), num_captions):
            raise ValueError(
                f"{self.folder} does not have a score for each of its {num_captions.sum()} captions. Expected scored "
                "shards: write them with `synth2 predict --config score.yaml` and use their folder, or train on all "
                "pairs alike with keep_fraction=1, best_draws=null and weights=null."
            )
        return np.asarray(pc.list_flatten(scores), dtype=np.float32)


def _check_parts(folder: Path, manifest: Manifest) -> None:
    present = {part.name for part in list_parts(folder)}
    if missing := manifest.parts.keys() - present:
        raise FileNotFoundError(f"{folder} lacks {sorted(missing)} of its manifest. {_REMEDY}")
    if extra := present - manifest.parts.keys():
        raise ValueError(f"{folder} contains {sorted(extra)}, which its manifest does not list. {_REMEDY}")
    for name, num_rows in manifest.parts.items():
        footer = read_footer(folder / name)
        if footer.num_rows != num_rows:
            raise ValueError(f"{folder / name} has {footer.num_rows} rows, but {num_rows} in its manifest. {_REMEDY}")
        schema = footer.schema.to_arrow_schema()
        row_length = getattr(schema.field("tokens").type, "list_size", None) if "tokens" in schema.names else None
        if row_length != manifest.tokens.row_length:
            raise ValueError(
                f"{folder / name} has {row_length} ids per row, but {manifest.tokens.row_length} in its manifest. "
                f"{_REMEDY}"
            )
        if checksum_footer(folder / name) != manifest.footers.get(name):
            raise ValueError(f"{folder / name} is damaged: the checksum of its footer differs. {_REMEDY}")
        # After the checksum: pyarrow ends the process on some damaged statistics.
        if (largest := largest_id(folder / name)) >= manifest.tokens.codebook_size:
            raise ValueError(
                f"{folder / name} contains the id {largest}, but codebook {manifest.tokens.codebook!r} has the ids 0 "
                f"to {manifest.tokens.codebook_size - 1}. {_REMEDY}"
            )


def _map_parts(folder: Path, manifest: Manifest) -> Any:
    """Memory-map the rows from an Arrow copy named by the content of the parts; write the copy if it is missing."""
    import datasets

    parts = [folder / name for name in manifest.parts]
    digests = {part.name: manifest.digests.get(part.name, "") for part in parts}
    name = fingerprint_texts(text for item in digests.items() for text in item)
    copy = Path(datasets.config.HF_DATASETS_CACHE) / "synth2_shards" / f"{name}.arrow"
    try:
        if not copy.is_file():
            with lock_file(copy.with_suffix(".copying"), seconds=-1.0):  # other processes wait for the copy
                if not copy.is_file():
                    write_atomically(copy, partial(_copy_parts, parts, digests))
        return datasets.Dataset.from_file(str(copy)).with_format("arrow")
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{copy}, the cached copy of the shards in {folder}, is damaged ({error}). Expected it unchanged: delete "
            "it; the next run creates it again."
        ) from error
    except OSError as error:
        raise OSError(
            f"The shards in {folder} cannot be mapped: {error}. Expected a writable cache folder with enough disk "
            f"space (it is {datasets.config.HF_DATASETS_CACHE}); name another in HF_DATASETS_CACHE."
        ) from error


def _copy_parts(parts: Sequence[Path], digests: Mapping[str, str], copy: Path) -> None:
    check_no_repeated(parts)
    with open_parquet(parts[0], _REMEDY) as file:
        schema = pa.schema([field for field in file.schema_arrow if field.name in _COLUMNS])
    with pa.OSFile(str(copy), "wb") as out, pa.ipc.new_stream(out, schema) as writer:
        for part in parts:
            if fingerprint_file(part) != digests[part.name]:
                raise ValueError(f"{part} is damaged or was replaced: its SHA-256 differs. {_REMEDY}")
            with open_parquet(part, _REMEDY) as file:
                if missing := set(schema.names) - set(file.schema_arrow.names):
                    raise ValueError(f"{part} has no column {sorted(missing)}, unlike {parts[0].name}. {_REMEDY}")
                for batch in read_batches(file, schema.names):
                    writer.write_batch(batch.cast(schema))


_REMEDY = "Expected the folder unchanged since it was finished: restore it, or create the shards again."
_COLUMNS = ("key", "source", "captions", "tokens", "class_name", "seed", "scores")
