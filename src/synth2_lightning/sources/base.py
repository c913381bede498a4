"""What all sources share: a compact index of pictures, and an honest count of what was left out."""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import pyarrow as pa
from PIL import Image

from synth2_lightning.fingerprints import fingerprint_captions
from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.jsontext import REPLACEMENT, has_surrogates

_logger = logging.getLogger(__name__)
_NUM_END_BYTES = 4096
_MAX_COMPARED = 10_000


class Entry(NamedTuple):
    """One picture as an index names it, before anything was checked.

    Attributes:
        key: The picture's id.
        captions: Its captions as they are written in the index.
        location: Where it lies (a text, a number or a dictionary of those); ``None`` if the index does not say.
    """

    key: str
    captions: Sequence[str]
    location: Any


class LeftOut:
    """Counts what a source does not use, for one warning that names every reason with an example."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, str] = {}

    def add(self, reason: str, example: str) -> None:
        """Count one thing that is left out."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        self._examples.setdefault(reason, example)

    def warn(self, name: str) -> None:
        """Log one warning if anything was left out."""
        if self._counts:
            reasons = ", ".join(
                f"{count} {reason} (the first: {self._examples[reason]})" for reason, count in self._counts.items()
            )
            _logger.warning("Source %r leaves out %s.", name, reasons)


def warn_of_damaged(name: str, keys: Sequence[str]) -> None:
    """Log one warning if captions hold U+FFFD, which stands where a character was damaged; they are kept.

    Args:
        name: Of the source or the file.
        keys: What each caption of that kind is called.
    """
    if keys:
        _logger.warning(
            "%r keeps %d captions with U+FFFD, where half a character or a damaged one stood (the first: %s).",
            *(name, len(keys), keys[0]),
        )


class IndexedSource(ImageTextSource):
    """A source that reads its whole index first and its pictures one at a time.

    The index is kept in Arrow arrays, not in Python objects: it takes its bytes and no more, and data loader workers
    share it, because no reference count is ever written into its pages.

    Args:
        name: Short name for logs.
        limit: Keep the first pictures only; all of them if ``None``.

    Raises:
        ValueError: If the limit is below one.
    """

    def __init__(self, name: str, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(
                f"Source {name!r} got limit={limit}; expected 1 or more pictures, or none for all of them."
            )
        self.name = name
        self.limit = limit
        self._index: pa.RecordBatch | None = None

    @abstractmethod
    def read_index(self, left_out: LeftOut) -> Iterable[Entry]:
        """Go through the index in its order.

        Args:
            left_out: Where to count what cannot even be named as an entry.
        """

    @abstractmethod
    def read_picture(self, location: Any) -> Image.Image:
        """Read the picture at a location that :meth:`read_index` gave."""

    def load(self) -> None:
        """Read the index; the second call does nothing.

        Raises:
            ValueError: If a key comes twice, or no picture with a caption is left.
        """
        if self._index is not None:
            return
        left_out = LeftOut()
        kept: dict[str, Entry] = {}
        for entry in self.read_index(left_out):
            if entry.key in kept:
                raise ValueError(
                    f"Source {self.name!r} has two pictures with the key {entry.key!r}; expected every key once, "
                    "because scores and shards name pictures by it. Remove one of them from the index."
                )
            if (tidy := _tidy(entry, left_out)) is not None:
                kept[entry.key] = tidy
            if len(kept) == self.limit:
                break
        left_out.warn(self.name)
        warn_of_damaged(
            self.name, [key for key, entry in kept.items() for caption in entry.captions if REPLACEMENT in caption]
        )
        if not kept:
            raise ValueError(
                f"Source {self.name!r} holds no picture with a caption; expected at least one. Look at the warning "
                "above for what was left out, and at the arguments that name its files and columns."
            )
        self._index = pa.record_batch(
            {
                "key": pa.array(kept, pa.large_string()),
                "captions": pa.array([entry.captions for entry in kept.values()], pa.large_list(pa.large_string())),
                "location": pa.array([entry.location for entry in kept.values()]),
            }
        )

    def __len__(self) -> int:
        """Number of pictures."""
        return int(self._loaded().num_rows)

    def key(self, index: int) -> str:
        """The picture's id."""
        return str(self._loaded()["key"][index])

    def captions(self, index: int) -> tuple[str, ...]:
        """Captions of a picture."""
        return tuple(self._loaded()["captions"][index].as_py())

    def picture(self, index: int) -> Image.Image:
        """Read a picture, upright and in RGB."""
        return self.read_picture(self._loaded()["location"][index].as_py())

    def image_fingerprint(self, index: int) -> str:
        """Return size and checksum of the end of a picture's file: compressed, another picture has another end."""
        return _fingerprint_end(self._loaded()["location"][index].as_py())

    def fingerprint(self) -> str:
        """Return a checksum of keys, captions, prompts and images; of 10,000 images at most, evenly over the source."""
        index = self._loaded()
        texts = fingerprint_captions(index["key"], index["captions"])
        prompts = map(self.prompt, range(len(self))) if self.prompt(0) is not None else ()
        compared = range(0, len(self), -(-len(self) // _MAX_COMPARED))
        with ThreadPoolExecutor(16) as readers:  # on network shares every file is a request
            images = list(readers.map(self.image_fingerprint, compared))
        return f"{texts}-{crc32(repr([*prompts, images]).encode()):08x}"

    def _loaded(self) -> pa.RecordBatch:
        if self._index is None:
            raise RuntimeError(f"Source {self.name!r} was asked for its content before load(); call load() first.")
        return self._index


def _fingerprint_end(location: Any) -> str:
    match location:
        case str():
            path, start, size = Path(location), 0, None
        case {"picture": str(name)}:
            path, start, size = Path(name), 0, None
        case {"tar": str(tar), "offset": int(start), "size": int(size)}:
            path = Path(tar)
        case _:  # it lies in no file of its own
            return ""
    try:
        size = path.stat().st_size if size is None else size
        with path.open("rb") as file:
            file.seek(start + max(0, size - _NUM_END_BYTES))
            return f"{size}-{crc32(file.read(min(size, _NUM_END_BYTES))):08x}"
    except OSError:  # a missing picture is counted where it is read
        return "missing"


def _tidy(entry: Entry, left_out: LeftOut) -> Entry | None:
    if entry.location is None:
        left_out.add("captions without a picture", ascii(entry.key)[1:-1] if has_surrogates(entry.key) else entry.key)
        return None
    if any(has_surrogates(name) for name in (entry.key, *_list_texts(entry.location))):
        left_out.add("pictures whose names are not in UTF-8", ascii(entry.key))
        return None
    captions = [text for text in (caption.strip() for caption in entry.captions) if text]
    for _ in range(len(entry.captions) - len(captions)):
        left_out.add("empty captions", f"of {entry.key}")
    if not captions:
        left_out.add("pictures without a caption", entry.key)
        return None
    return entry._replace(captions=captions)


def _list_texts(location: Any) -> list[str]:
    values = location.values() if isinstance(location, dict) else [location]
    return [value for value in values if isinstance(value, str)]
