"""Base class of the caption sources: captions in Arrow arrays, unique keys, and a count of empty captions."""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from synth2_lightning.interfaces import CaptionSource
from synth2_lightning.io.index_files import Index
from synth2_lightning.io.json_text import REPLACEMENT
from synth2_lightning.io.messages import name_first
from synth2_lightning.sources.base import warn_of_damaged
from synth2_lightning.sources.kept_index import keep_index
from synth2_lightning.types import CaptionRecord

_logger = logging.getLogger(__name__)
_COLUMNS = ("key", "caption", "class_name", "image_id")


class IndexedCaptions(CaptionSource):
    """Caption source that reads all captions in ``load()`` and stores them as Arrow arrays, not as Python objects.

    Indexes of large files are kept in the cache; see :func:`~synth2_lightning.sources.kept_index.keep_index`.

    Args:
        name: Name of the source in logs and shards.
        max_empty_captions: Number of empty captions that are skipped with a warning; more are an error.
        limit: Maximum number of captions, from the first; ``None`` keeps all.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self, name: str, max_empty_captions: int = 10, limit: int | None = None) -> None:
        if max_empty_captions < 0:
            raise ValueError(f"Captions {name!r} got max_empty_captions={max_empty_captions}; expected 0 or more.")
        if limit is not None and limit < 1:
            raise ValueError(f"Captions {name!r} got limit={limit}; expected 1 or more captions, or null for all.")
        self.name = name
        self.max_empty_captions = max_empty_captions
        self.limit = limit
        self._index: pa.RecordBatch | None = None

    @abstractmethod
    def read_captions(self) -> Iterable[CaptionRecord]:
        """Yield the captions in their order, empty ones included."""

    def list_files(self) -> Sequence[Path]:
        """Return the files that, with the arguments, determine them; none if others do, so that no index is kept."""
        return ()

    def _load(self) -> None:
        """Read the captions; a repeated key, too many empty captions and a source without one are errors."""
        index = keep_index(self, self.list_files(), self._make_index)
        if empty := index.notes["empty"]:
            _logger.warning("Captions %r skip %d empty ones: %s", self.name, len(empty), name_first(empty))
        warn_of_damaged(self.name, index.notes["damaged"])
        self._index = index.rows

    def _make_index(self) -> Index:
        columns: dict[str, list[str]] = {name: [] for name in _COLUMNS}
        empty: list[str] = []
        for record in self.read_captions():
            caption = record.caption.strip()
            if not caption:
                empty.append(record.key)
                continue
            values = (record.key, caption, record.class_name, record.image_id)
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
            if len(columns["key"]) == self.limit:
                break
        self._check_empty(empty)
        index = pa.record_batch({name: pa.array(column, pa.large_string()) for name, column in columns.items()})
        self._check_keys(index)
        damaged = [key for key, text in zip(columns["key"], columns["caption"], strict=True) if REPLACEMENT in text]
        return Index(index, {"empty": empty, "damaged": damaged})

    def __len__(self) -> int:
        return int(self._loaded().num_rows)

    def record(self, index: int) -> CaptionRecord:
        """Return one caption with its key, class name and image id."""
        key, caption, class_name, image_id = (column[index].as_py() for column in self._loaded().columns)
        return CaptionRecord(key, caption, class_name, image_id=image_id)

    def _loaded(self) -> pa.RecordBatch:
        if self._index is None:
            raise RuntimeError(f"Captions {self.name!r} were read before load(); call load() first.")
        return self._index

    def _check_empty(self, keys: list[str]) -> None:
        if len(keys) > self.max_empty_captions:
            raise ValueError(
                f"{len(keys)} captions of {self.name!r} are empty: {name_first(keys)}; expected at most "
                f"max_empty_captions={self.max_empty_captions}. Write or remove them, set another caption column, or "
                "raise max_empty_captions."
            )

    def _check_keys(self, index: pa.RecordBatch) -> None:
        if index.num_rows == 0:
            raise ValueError(
                f"Captions {self.name!r} contain no caption; expected at least one. Check the arguments that name the "
                "file and skip its beginning."
            )
        counts = pc.value_counts(index["key"])
        repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist()
        if repeated:
            raise ValueError(
                f"Captions {self.name!r} have {len(repeated)} repeated keys: {name_first(repeated)}. Expected unique "
                "keys, because a resumed run identifies finished records by them. Make them unique, set another key "
                "column, or none to number the rows."
            )
