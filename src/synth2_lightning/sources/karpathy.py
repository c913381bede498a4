"""Karpathy's splits of COCO, Flickr30k and Flickr8k (https://cs.stanford.edu/people/karpathy/deepimagesent/)."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from synth2_lightning.io.locations import resolve
from synth2_lightning.io.tables import take_text
from synth2_lightning.sources.base import Entry, IndexedSource, SkipCounter
from synth2_lightning.sources.jsonfile import read_id, read_json, read_records

_EXPECTED = (
    "a Karpathy split: {'images': [{'filename': '1.jpg', 'split': 'train', 'sentences': [{'raw': '...'}]}]}, with "
    "also 'filepath' and 'cocoid' for images of COCO"
)


class KarpathySource(IndexedSource):
    """Image source of one ``dataset_*.json`` and a folder of images; the key is COCO's id or the file name.

    Args:
        file: Path or URL of the JSON file, such as ``dataset_coco.json``.
        images: Folder that ``filepath/filename`` is relative to.
        splits: Splits to read; ``["train", "restval"]`` is the usual training set of COCO.
        name: Short name for logs.
        limit: Maximum number of images, from the first; ``None`` keeps all.

    Raises:
        ValueError: If there is no split.
    """

    def __init__(
        self, file: str, images: str, splits: Sequence[str], name: str = "coco", limit: int | None = None
    ) -> None:
        super().__init__(name, limit)
        if not splits:
            raise ValueError(f"Source {name!r} got no split; expected a list such as ['train', 'restval'].")
        self.file = file
        self.images = images
        self.splits = tuple(splits)
        self.is_evaluation = not {"val", "test"}.isdisjoint(self.splits)

    @cached_property
    def _paths(self) -> tuple[Path, Path]:
        return (
            resolve(self.file, f"split file of source {self.name!r}"),
            resolve(self.images, f"images folder of source {self.name!r}"),
        )

    def list_files(self) -> list[Path]:
        """Return the JSON file."""
        return [self._paths[0]]

    def read_index(self, skipped: SkipCounter) -> Iterator[Entry]:
        """Yield the images of the requested splits.

        Raises:
            FileNotFoundError: If the file or the folder does not exist.
            ValueError: If the file has another format, or lacks a split.
        """
        path, folder = self._paths
        records = read_records(read_json(path, _EXPECTED), "images", path, _EXPECTED)
        present = {str(record.get("split")) for record in records}
        if unknown := set(self.splits) - present:
            raise ValueError(f"{path} has no split {sorted(unknown)}; expected some of {sorted(present)}.")
        try:
            for number, record in enumerate(records, start=1):
                if record["split"] in self.splits:
                    yield _to_entry(record, folder, path, number)
        except KeyError as error:
            raise ValueError(f"{path} has a record without {error}; expected {_EXPECTED}.") from error


def _to_entry(record: dict[str, object], folder: Path, path: Path, number: int) -> Entry:
    where = f"{path}, image {number},"
    file_name, file_path = (take_text(record.get(field), where, field) for field in ("filename", "filepath"))
    key = read_id(record, "cocoid", path, _EXPECTED) if "cocoid" in record else file_name
    sentences = read_records(record, "sentences", path, _EXPECTED)
    captions = [take_text(sentence["raw"], where, "raw") for sentence in sentences]
    return Entry(key, captions, str(folder / file_path / file_name) if file_name else None)
