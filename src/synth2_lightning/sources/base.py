"""Base class of the image sources: an index in Arrow arrays, and counts of skipped items."""

import logging
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.io.fingerprints import fingerprint_captions
from synth2_lightning.io.index_files import Index
from synth2_lightning.io.json_text import REPLACEMENT, has_surrogates
from synth2_lightning.sources.images import decode_image
from synth2_lightning.sources.kept_index import keep_index

_logger = logging.getLogger(__name__)
_NUM_END_BYTES = 4096
_MAX_COMPARED = 10_000
_DAMAGED = "captions with U+FFFD in place of an invalid character"


class Entry(NamedTuple):
    """One unchecked image of an index.

    Attributes:
        key: Id of the image.
        captions: Captions as written in the index.
        location: Location of the image (a string, a number or a dictionary of those); ``None`` if the index has none.
    """

    key: str
    captions: Sequence[str]
    location: Any


class SkipCounter:
    """Counts the items that a source skips, by reason, and logs them in one warning.

    Attributes:
        scope: Part of the source that the counts are of, such as ``"2 of 9 tars"``; empty if they are of all.
    """

    def __init__(self) -> None:
        self.scope = ""
        self._counts: dict[str, int] = {}
        self._examples: dict[str, str] = {}

    def add(self, reason: str, example: str) -> None:
        """Count one skipped item.

        Args:
            reason: Plural noun phrase that the warning counts, such as ``"empty captions"``.
            example: Name of the item; the warning shows the first one of each reason.
        """
        self.add_counts({reason: (1, example)})

    def counts(self) -> dict[str, tuple[int, str]]:
        """Return count and first example of each reason."""
        return {reason: (count, self._examples[reason]) for reason, count in self._counts.items()}

    def add_counts(self, counts: Mapping[str, tuple[int, str]]) -> None:
        """Add the counts of another counter."""
        for reason, (count, example) in counts.items():
            self._counts[reason] = self._counts.get(reason, 0) + count
            self._examples.setdefault(reason, example)

    def warn(self, name: str) -> None:
        """Log one warning if an item was skipped, and one if captions are damaged, which are kept."""
        texts = {
            reason: f"{count} {reason} (the first: {self._examples[reason]})" for reason, count in self._counts.items()
        }
        scope = f", in {self.scope}" if self.scope else ""
        if damaged := texts.pop(_DAMAGED, ""):
            _logger.warning("%r keeps %s%s.", name, damaged, scope)
        if texts:
            _logger.warning("Source %r skips %s%s.", name, ", ".join(texts.values()), scope)


def warn_of_damaged(name: str, keys: Sequence[str]) -> None:
    """Log one warning if a source or file keeps captions with U+FFFD, the replacement of an invalid character."""
    counter = SkipCounter()
    for key in keys:
        counter.add(_DAMAGED, key)
    counter.warn(name)


class ArrowSource(ImageTextSource):
    """Image source with an index in Arrow arrays that reads its images one at a time.

    Unlike Python objects, Arrow arrays can be memory-mapped files, and data loader workers share their pages, because
    no reference counts are written into them.

    Args:
        name: Short name for logs.
        limit: Maximum number of images, from the first; ``None`` keeps all.

    Raises:
        ValueError: If the limit is below 1.
    """

    def __init__(self, name: str, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"Source {name!r} got limit={limit}; expected 1 or more images, or null for all of them.")
        self.name = name
        self.limit = limit
        self._index: pa.Table | None = None

    @abstractmethod
    def build_index(self, skipped: SkipCounter) -> pa.Table:
        """Return the columns ``key``, ``captions`` (lists of strings) and ``location``; ``skipped`` counts the rest.

        Keys are unique, and each row has a caption.
        """

    def read_image(self, location: Any) -> Image.Image:
        """Return the image at a location that :meth:`read_index` yielded; by default, a location is a path."""
        return decode_image(Path(location), location)

    def _load(self) -> None:
        """Read the index; one without a caption is an error."""
        skipped = SkipCounter()
        index = self.build_index(skipped)
        skipped.warn(self.name)
        if not index.num_rows:
            raise ValueError(
                f"Source {self.name!r} has no image with a caption; expected at least one. Check the warning above, "
                "which lists the skipped items, and the arguments that name its files and columns."
            )
        self._index = index

    def __len__(self) -> int:
        return int(self._loaded().num_rows)

    def key(self, index: int) -> str:
        """Id of an image."""
        return str(self._loaded()["key"][index])

    def captions(self, index: int) -> tuple[str, ...]:
        """Captions of an image."""
        return tuple(self._loaded()["captions"][index].as_py())

    def count_captions(self) -> NDArray[np.int64]:
        """Return the number of captions of each image."""
        lengths: NDArray[np.int64] = pc.list_value_length(self._loaded()["captions"]).to_numpy().astype(np.int64)
        return lengths

    def image(self, index: int) -> Image.Image:
        """Return an image in RGB, with its EXIF orientation applied."""
        return self.read_image(self._loaded()["location"][index].as_py())

    def image_fingerprint(self, index: int) -> str:
        """Return size and checksum of the last 4096 bytes of an image file; compressed images differ there."""
        return _fingerprint_end(self._loaded()["location"][index].as_py())

    def fingerprint(self) -> str:
        """Return a checksum of keys, captions, prompts and at most 10,000 images, evenly spaced over the source."""
        index = self._loaded()
        texts = fingerprint_captions(index["key"], index["captions"])
        prompts = map(self.prompt, range(len(self))) if self.prompt(0) is not None else ()
        compared = range(0, len(self), -(-len(self) // _MAX_COMPARED))
        with ThreadPoolExecutor(16) as readers:  # on network file systems each file is a request
            images = list(readers.map(self.image_fingerprint, compared))
        return f"{texts}-{crc32(repr([*prompts, images]).encode()):08x}"

    def _loaded(self) -> pa.Table:
        if self._index is None:
            raise RuntimeError(f"Source {self.name!r} was read before load(); call load() first.")
        return self._index


class IndexedSource(ArrowSource):
    """Image source that reads its whole index in ``load()`` and its images one at a time.

    Indexes of large files are kept in the cache, so that later runs and other processes do not parse the files again;
    see :func:`~synth2_lightning.sources.kept_index.keep_index`.

    Args:
        name: Short name for logs.
        limit: Maximum number of images, from the first; ``None`` keeps all.

    Raises:
        ValueError: If the limit is below 1.
    """

    @abstractmethod
    def read_index(self, skipped: SkipCounter) -> Iterable[Entry]:
        """Yield the entries of the index in its order; ``skipped`` counts the items that form no entry."""

    def list_files(self) -> Sequence[Path]:
        """Return the files that, with the arguments, determine the index; none if others do, so that it is not kept."""
        return ()

    def build_index(self, skipped: SkipCounter) -> pa.Table:
        """Check the entries; a repeated key is an error."""
        index = keep_index(self, self.list_files(), self._make_index)
        skipped.add_counts(index.notes)
        return pa.Table.from_batches([index.rows])

    def _make_index(self) -> Index:
        skipped = SkipCounter()
        kept: dict[str, Entry] = {}
        for entry in self.read_index(skipped):
            if entry.key in kept:
                raise ValueError(
                    f"Source {self.name!r} has two images with the key {entry.key!r}; expected unique keys, because "
                    "scores and shards identify images by them. Remove one of the images from the index."
                )
            if (checked := check_entry(entry, skipped)) is not None:
                kept[entry.key] = checked
            if len(kept) == self.limit:
                break
        return Index(tabulate(kept.values()), skipped.counts())


def tabulate(entries: Collection[Entry]) -> pa.RecordBatch:
    """Return checked entries as the columns of an index."""
    captions = pa.large_list(pa.large_string())
    locations = [entry.location for entry in entries]
    are_texts = bool(locations) and all(isinstance(location, str) for location in locations)
    return pa.record_batch(
        {
            "key": pa.array([entry.key for entry in entries], pa.large_string()),
            "captions": pa.array([entry.captions for entry in entries], captions),
            "location": pa.array(locations, pa.large_string() if are_texts else None),
        }
    )


def _fingerprint_end(location: object) -> str:
    match location:
        case str():
            path, start, size = Path(location), 0, None
        case {"image": str(name)}:
            path, start, size = Path(name), 0, None
        case {"tar": str(tar), "offset": int(start), "size": int(size)}:
            path = Path(tar)
        case _:  # the image has no file of its own
            return ""
    try:
        size = path.stat().st_size if size is None else size
        with path.open("rb") as file:
            file.seek(start + max(0, size - _NUM_END_BYTES))
            return f"{size}-{crc32(file.read(min(size, _NUM_END_BYTES))):08x}"
    except (OSError, ValueError):  # missing images and names with a null byte are counted when they are read
        return "missing"


def check_entry(entry: Entry, skipped: SkipCounter) -> Entry | None:
    """Return an entry without empty captions; count it and return ``None`` if nothing is left or it is not text."""
    if entry.location is None:
        skipped.add("captions without an image", ascii(entry.key)[1:-1] if has_surrogates(entry.key) else entry.key)
        return None
    names = entry.location.values() if isinstance(entry.location, dict) else (entry.location,)
    if any(isinstance(name, str) and has_surrogates(name) for name in (entry.key, *names)):
        skipped.add("images whose names are not in UTF-8", ascii(entry.key))
        return None
    captions = [text for text in (caption.strip() for caption in entry.captions) if text]
    for _ in range(len(entry.captions) - len(captions)):
        skipped.add("empty captions", f"of {entry.key}")
    if not captions:
        skipped.add("images without a caption", entry.key)
        return None
    for _ in range(sum(REPLACEMENT in caption for caption in captions)):
        skipped.add(_DAMAGED, entry.key)
    return entry._replace(captions=captions)
