"""Tar files of images and captions in the format of img2dataset (https://github.com/rom1504/img2dataset)."""

from collections.abc import Sequence
from io import BytesIO
from itertools import chain, count
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from synth2_lightning.io.remote import is_remote
from synth2_lightning.sources.base import ArrowSource, SkipCounter
from synth2_lightning.sources.images import decode_image
from synth2_lightning.sources.tar_files import find_tars, read_part
from synth2_lightning.sources.tar_index import open_tar_indexes


class TarSource(ArrowSource):
    """Image source of uncompressed tar files, read by random access without extracting them.

    ``load()`` scans each tar once for the offsets of its members; other processes and later runs read them from the
    cache (see :mod:`synth2_lightning.sources.tar_index`). Members with the same path up to the last suffix form a
    sample: ``000012.jpg`` with ``000012.txt``, or with ``000012.json`` and its field ``caption``. That path is the key,
    prefixed by the name of the tar if an earlier tar has the same key, as in ``00001/000012``. Members without a
    counterpart, such as ``000012.seg.png``, and further images or captions of a key are skipped and counted. Suffixes
    are case-insensitive.

    Args:
        tars: A file, a pattern such as ``cc12m/*.tar`` or ``s3://bucket/cc12m/*.tar``, a range such as
            ``cc12m/{00000..00012}.tar``, all tars of which must exist, or a list of these. Tars at URLs are not copied:
            they are scanned once, and images are read by one request each.
        name: Short name for logs.
        limit: Maximum number of images, from the first; ``None`` keeps all.
    """

    def __init__(self, tars: str | Sequence[str], name: str = "webdataset", limit: int | None = None) -> None:
        super().__init__(name, limit)
        self.tars = (tars,) if isinstance(tars, str) else tuple(tars)
        self._versions: dict[str, str] = {}

    def build_index(self, skipped: SkipCounter) -> pa.Table:
        """Return the samples of all tars, in the order of their names.

        Raises:
            FileNotFoundError: If a pattern matches nothing, or tars of a range are missing.
            OSError: If a tar is damaged, or a server cannot be reached.
            ValueError: If a range is empty or too long, or a caption cannot be read.
        """
        tars = find_tars(self.tars, self.name)
        indexes = open_tar_indexes(tars, self.limit)
        used = tars[: len(indexes)]
        for index in indexes:
            skipped.add_counts(index.notes)
        if self.limit is not None:
            skipped.scope = f"the {len(used)} of {len(tars)} tars that limit={self.limit} needs"
        self._versions = {tar.name: f"{tar.num_bytes}-{tar.version}" for tar in used if is_remote(tar.name)}
        table = pa.concat_tables([_locate(index.rows, tar.name) for index, tar in zip(indexes, used, strict=True)])
        hashes = np.sort(np.concatenate([index.rows["hash"].to_numpy() for index in indexes]))
        if (hashes[1:] == hashes[:-1]).any():
            keys = _make_unique([tar.name for tar in used], [index.rows["key"].to_pylist() for index in indexes])
            table = table.set_column(0, "key", pa.array(keys, pa.large_string()))
        return table.slice(0, self.limit)

    def read_image(self, location: dict[str, Any]) -> Image.Image:
        """Return the image of a tar member."""
        content = read_part(location["tar"], location["offset"], location["size"])
        return decode_image(BytesIO(content), f"{location['tar']}:{location['member']}")

    def image_fingerprint(self, index: int) -> str:
        """Return size and checksum of the end of an image; for a tar at a URL, size and version of the tar."""
        tar = self._loaded()["location"][index]["tar"].as_py()
        return self._versions.get(tar) or super().image_fingerprint(index)


def _locate(samples: pa.RecordBatch, path: str) -> pa.Table:
    """Return keys, captions and locations of the samples of a tar; the path is stored once."""
    tar = pa.DictionaryArray.from_arrays(np.zeros(len(samples), np.int8), pa.array([path]))
    columns = {name: samples[name] for name in ("member", "offset", "size")}
    location = pa.StructArray.from_arrays([tar, *columns.values()], ["tar", *columns])
    return pa.table({"key": samples["key"], "captions": samples["captions"], "location": location})


def _make_unique(tars: Sequence[str], keys: Sequence[Sequence[str]]) -> list[str]:
    """Return the keys of all tars, prefixed by as many parts of the tar's path as make them unique."""
    used: dict[str, None] = {}
    for tar, of_tar in zip(tars, keys, strict=True):
        parts = PurePosixPath(tar).with_suffix("").parts
        for key in of_tar:
            candidates = chain(
                (key, *("/".join((*parts[-num:], key)) for num in range(1, len(parts) + 1))),
                (f"{key}~{num}" for num in count(2)),  # if keys have names of folders in them
            )
            used[next(candidate for candidate in candidates if candidate not in used)] = None
    return list(used)
