"""Tar files of images and captions in the format of img2dataset (https://github.com/rom1504/img2dataset)."""

import re
from collections.abc import Sequence
from glob import glob
from io import BytesIO
from itertools import product
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from synth2_lightning.io.locations import resolve
from synth2_lightning.io.paths import expand_home
from synth2_lightning.io.remote import is_remote, match_remote
from synth2_lightning.sources.base import ArrowSource, SkipCounter
from synth2_lightning.sources.images import decode_image
from synth2_lightning.sources.tar_index import open_tar_index

_MAX_TARS = 1_000_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_NUM_NAMED = 5


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
            ``cc12m/{00000..00012}.tar``, all tars of which must exist, or a list of these. Remote tars are downloaded
            when they are indexed.
        name: Short name for logs.
        limit: Maximum number of images, from the first; ``None`` keeps all.
    """

    def __init__(self, tars: str | Sequence[str], name: str = "webdataset", limit: int | None = None) -> None:
        super().__init__(name, limit)
        self.tars = (tars,) if isinstance(tars, str) else tuple(tars)

    def build_index(self, skipped: SkipCounter) -> pa.Table:
        """Return the samples of all tars, in the order of their names.

        Raises:
            FileNotFoundError: If a pattern matches nothing, or tars of a range are missing.
            OSError: If a tar is damaged.
            ValueError: If a range is empty or too long, or a caption cannot be read.
        """
        tars = self._find()
        paths = {tar: str(resolve(tar, f"tar of source {self.name!r}")) if is_remote(tar) else tar for tar in tars}
        samples, hashes, num_samples = [], [], 0
        for path in paths.values():
            index = open_tar_index(Path(path))
            skipped.add_counts(index.skipped)
            hashes.append(index.samples["hash"].to_numpy())
            samples.append(_locate(index.samples, path))
            num_samples += len(index.samples)
            if self.limit is not None and num_samples >= self.limit:
                break
        table = pa.concat_tables(samples)
        if len(np.unique(np.concatenate(hashes))) < num_samples:
            keys = _make_unique(list(paths)[: len(samples)], [part["key"].to_pylist() for part in samples])
            table = table.set_column(0, "key", pa.array(keys, pa.large_string()))
        return table.slice(0, self.limit)

    def _find(self) -> list[str]:
        """Return the unique paths and URLs of all tars in order."""
        found: dict[str, None] = {}
        missing: list[str] = []
        for pattern in self.tars:
            for name in _expand_range(pattern):
                try:
                    found.update(dict.fromkeys(self._match(name)))
                except FileNotFoundError:
                    if name == pattern:
                        raise
                    missing.append(name)
        if missing:
            names = ", ".join(missing[:_NUM_NAMED]) + (", and others" if len(missing) > _NUM_NAMED else "")
            raise FileNotFoundError(
                f"{len(missing)} tars in the ranges of source {self.name!r} are missing: {names} (searched in "
                f"{Path.cwd()}). Expected all of them: download them, or change the ranges."
            )
        return list(found)

    def _match(self, name: str) -> list[str]:
        if is_remote(name):
            return match_remote(name, f"tars of source {self.name!r}")
        path = expand_home(name)
        if path.is_file():  # its name may contain brackets
            return [str(path)]
        if paths := sorted(glob(str(path))):  # noqa: PTH207  # Path.glob takes no absolute pattern
            return paths
        raise FileNotFoundError(
            f"No tar of source {self.name!r} matches {name!r} (searched in {Path.cwd()}). Expected a file, a pattern "
            "such as 'cc12m/*.tar', or a range such as 'cc12m/{00000..00012}.tar'."
        )

    def read_image(self, location: dict[str, Any]) -> Image.Image:
        """Return the image of a tar member."""
        with Path(location["tar"]).open("rb") as file:
            file.seek(location["offset"])
            content = file.read(location["size"])
        return decode_image(BytesIO(content), f"{location['tar']}:{location['member']}")


def _expand_range(pattern: str) -> list[str]:
    """Return the names of a pattern: all combinations of the numbers of ranges such as ``{00000..00012}`` in it."""
    if Path(pattern).exists():
        return [pattern]
    start, *parts = _RANGE.split(pattern)
    choices: list[list[str]] = [[start]]
    for first, last, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
        numbers = range(int(first), int(last) + 1)
        if not 0 < len(numbers) * prod(map(len, choices)) <= _MAX_TARS:
            raise ValueError(
                f"The range of tars {pattern!r} is empty or longer than {_MAX_TARS}; expected an ascending one, such "
                "as {00000..00012}."
            )
        choices.append([f"{number:0{width}d}{text}" for number in numbers])
    return list(map("".join, product(*choices)))


def _locate(samples: pa.Table, path: str) -> pa.Table:
    """Return keys, captions and locations of the samples of a tar; the path is stored once."""
    tar = pa.DictionaryArray.from_arrays(np.zeros(len(samples), np.int8), pa.array([path]))
    columns = {name: samples[name].combine_chunks() for name in ("member", "offset", "size")}
    location = pa.StructArray.from_arrays([tar, *columns.values()], ["tar", *columns])
    return pa.table({"key": samples["key"], "captions": samples["captions"], "location": location})


def _make_unique(tars: Sequence[str], keys: Sequence[Sequence[str]]) -> list[str]:
    """Return the keys of all tars, prefixed by as many parts of the tar's path as make them unique."""
    used: dict[str, None] = {}
    for tar, of_tar in zip(tars, keys, strict=True):
        parts = PurePosixPath(tar).with_suffix("").parts
        for key in of_tar:
            candidates = (key, *("/".join((*parts[-count:], key)) for count in range(1, len(parts) + 1)))
            used[next(candidate for candidate in candidates if candidate not in used)] = None
    return list(used)
