"""What all sets of captions share: an index in Arrow arrays, unique keys, and an honest count of empty captions."""

import logging
from abc import abstractmethod
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from synth2_lightning.interfaces import CaptionSource
from synth2_lightning.jsontext import REPLACEMENT
from synth2_lightning.sources.base import warn_of_damaged
from synth2_lightning.types import CaptionRecord

_logger = logging.getLogger(__name__)
_NUM_NAMED = 5


class IndexedCaptions(CaptionSource):
    """A set of captions that is read as a whole, once, and kept as Arrow arrays rather than Python objects.

    Args:
        name: What logs and shards call it.
        max_empty_captions: How many empty captions are left out, with a warning that names them, before it is an error.
        limit: Keep the first captions only; all of them if ``None``.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(self, name: str, max_empty_captions: int = 10, limit: int | None = None) -> None:
        if max_empty_captions < 0:
            raise ValueError(f"Captions {name!r} got max_empty_captions={max_empty_captions}; expected 0 or more.")
        if limit is not None and limit < 1:
            raise ValueError(f"Captions {name!r} got limit={limit}; expected 1 or more captions, or none for all.")
        self.name = name
        self.max_empty_captions = max_empty_captions
        self.limit = limit
        self._index: pa.RecordBatch | None = None

    @abstractmethod
    def read_captions(self) -> Iterable[CaptionRecord]:
        """Go through the captions in their order, empty ones included."""

    def load(self) -> None:
        """Read the captions; the second call does nothing.

        Raises:
            ValueError: If a key comes twice, too many captions are empty, or none is left.
        """
        if self._index is not None:
            return
        columns: tuple[list[str], list[str], list[str]] = ([], [], [])
        empty: list[str] = []
        for record in self.read_captions():
            caption = record.caption.strip()
            if not caption:
                empty.append(record.key)
                continue
            for column, value in zip(columns, (record.key, caption, record.class_name), strict=True):
                column.append(value)
            if len(columns[0]) == self.limit:
                break
        self._tell_empty(empty)
        index = pa.record_batch(
            [pa.array(column, pa.large_string()) for column in columns], names=["key", "caption", "class_name"]
        )
        self._check_keys(index)
        warn_of_damaged(self.name, [key for key, text in zip(*columns[:2], strict=True) if REPLACEMENT in text])
        self._index = index

    def __len__(self) -> int:
        """Number of captions."""
        return int(self._loaded().num_rows)

    def record(self, index: int) -> CaptionRecord:
        """Give a caption."""
        key, caption, class_name = (column[index].as_py() for column in self._loaded().columns)
        return CaptionRecord(key, caption, class_name)

    def _loaded(self) -> pa.RecordBatch:
        if self._index is None:
            raise RuntimeError(f"Captions {self.name!r} were asked for before load(); call load() first.")
        return self._index

    def _tell_empty(self, keys: list[str]) -> None:
        if len(keys) > self.max_empty_captions:
            raise ValueError(
                f"{len(keys)} captions of {self.name!r} are empty, and max_empty_captions={self.max_empty_captions} "
                f"puts up with no more than {self.max_empty_captions}: {_some(keys)}. Write them, take them out, name "
                "another caption column, or raise max_empty_captions."
            )
        if keys:
            _logger.warning("Captions %r leave out %d that are empty: %s", self.name, len(keys), _some(keys))

    def _check_keys(self, index: pa.RecordBatch) -> None:
        if index.num_rows == 0:
            raise ValueError(
                f"Captions {self.name!r} hold not one caption; expected at least one. Look at the arguments that name "
                "its file and leave out its beginning."
            )
        counts = pc.value_counts(index["key"])
        repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist()
        if repeated:
            raise ValueError(
                f"Captions {self.name!r} have {len(repeated)} keys more than once: {_some(repeated)}. Expected every "
                "key once, because a run that goes on knows by it what is made already. Make them unique, or name "
                "another key column, or none to number the rows."
            )


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_NUM_NAMED]) + (", and others" if len(keys) > _NUM_NAMED else "")
