"""Karpathy's splits of COCO, Flickr30k and Flickr8k (https://cs.stanford.edu/people/karpathy/deepimagesent/)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from synth2_lightning.locations import resolve
from synth2_lightning.sources.base import Entry, IndexedSource, LeftOut
from synth2_lightning.sources.jsonfile import read_id, read_json, read_records
from synth2_lightning.sources.pictures import decode_picture
from synth2_lightning.tables import take_text

_EXPECTED = (
    "a Karpathy split: {'images': [{'filename': '1.jpg', 'split': 'train', 'sentences': [{'raw': '...'}]}]}, with "
    "'filepath' and 'cocoid' besides where the pictures are COCO's"
)


class KarpathySource(IndexedSource):
    """Photographs in a folder, captions and splits in one ``dataset_*.json``; the key is COCO's id or the file name.

    Args:
        file: The JSON file, such as ``dataset_coco.json``.
        images: Folder that ``filepath/filename`` is relative to.
        splits: Which splits to read; ``["train", "restval"]`` is the usual training set of COCO.
        name: Short name for logs.
        limit: Keep the first pictures only.

    Raises:
        ValueError: If no split is named.

    Example:
        >>> KarpathySource("dataset_coco.json", "coco", splits=["train", "restval"]).splits
        ('train', 'restval')
    """

    def __init__(
        self, file: str, images: str, splits: Sequence[str], name: str = "coco", limit: int | None = None
    ) -> None:
        super().__init__(name, limit)
        if not splits:
            raise ValueError(f"Source {name!r} got no split; expected names such as ['train', 'restval'].")
        self.file = file
        self.images = images
        self.splits = tuple(splits)
        self.is_evaluation = not {"val", "test"}.isdisjoint(self.splits)

    def read_index(self, left_out: LeftOut) -> Iterator[Entry]:
        """Go through the pictures of the chosen splits.

        Raises:
            FileNotFoundError: If the file or the folder does not exist.
            ValueError: If the file is no Karpathy split, or has no such split.
        """
        path = resolve(self.file, f"split file of source {self.name!r}")
        folder = resolve(self.images, f"images folder of source {self.name!r}")
        records = read_records(read_json(path, _EXPECTED), "images", path, _EXPECTED)
        present = {str(record.get("split")) for record in records}
        if unknown := set(self.splits) - present:
            raise ValueError(f"{path} has no split {sorted(unknown)}; it has {sorted(present)}. Choose from those.")
        try:
            for number, record in enumerate(records, start=1):
                if record["split"] in self.splits:
                    yield _to_entry(record, folder, path, number)
        except KeyError as error:
            raise ValueError(f"{path} has a record without {error}; expected {_EXPECTED}.") from error

    def read_picture(self, location: str) -> Image.Image:
        """Read a photograph."""
        return decode_picture(Path(location), location)


def _to_entry(record: dict[str, Any], folder: Path, path: Path, number: int) -> Entry:
    where = f"{path}, image {number},"
    file_name, inner = (take_text(record.get(field), where, field) for field in ("filename", "filepath"))
    key = read_id(record, "cocoid", path, _EXPECTED) if "cocoid" in record else file_name
    sentences = read_records(record, "sentences", path, _EXPECTED)
    captions = [take_text(sentence["raw"], where, "raw") for sentence in sentences]
    return Entry(key, captions, str(folder / inner / file_name) if file_name else None)
