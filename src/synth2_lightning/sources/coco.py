"""Photos with captions in COCO's JSON format (https://cocodataset.org/#format-data)."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from synth2_lightning.io.locations import resolve
from synth2_lightning.io.tables import take_text
from synth2_lightning.sources.base import Entry, IndexedSource, SkipCounter
from synth2_lightning.sources.jsonfile import read_id, read_json, read_records

_EXPECTED = (
    "COCO captions: {'images': [{'id': 1, 'file_name': '1.jpg'}], 'annotations': [{'image_id': 1, 'caption': '...'}]}"
)


class CocoSource(IndexedSource):
    """Image source of a COCO caption file and a folder of images; the key is COCO's image id.

    Args:
        annotations: Path or URL of the JSON file.
        images: Folder that its ``file_name`` entries are relative to.
        name: Short name for logs.
        limit: Maximum number of images, from the first; ``None`` keeps all.

    Example:
        >>> source = CocoSource("captions_val2017.json", "val2017", limit=1000)
        >>> source.name
        'coco'
    """

    def __init__(self, annotations: str, images: str, name: str = "coco", limit: int | None = None) -> None:
        super().__init__(name, limit)
        self.annotations = annotations
        self.images = images

    @cached_property
    def _paths(self) -> tuple[Path, Path]:
        return (
            resolve(self.annotations, f"annotations file of source {self.name!r}"),
            resolve(self.images, f"images folder of source {self.name!r}"),
        )

    def list_files(self) -> list[Path]:
        """Return the JSON file."""
        return [self._paths[0]]

    def read_index(self, skipped: SkipCounter) -> Iterator[Entry]:
        """Yield the images with the captions of their annotations.

        Raises:
            FileNotFoundError: If the file or the folder does not exist.
            ValueError: If the file is not in COCO's format.
        """
        path, folder = self._paths
        content = read_json(path, _EXPECTED)
        try:
            images = read_records(content, "images", path, _EXPECTED)
            captions: dict[str, list[str]] = {read_id(image, "id", path, _EXPECTED): [] for image in images}
            for number, annotation in enumerate(read_records(content, "annotations", path, _EXPECTED), start=1):
                key = read_id(annotation, "image_id", path, _EXPECTED)
                if key not in captions:
                    skipped.add("annotations of unknown images", f"image_id {key}")
                elif reason := self.reject(annotation):
                    skipped.add(reason, f"of image_id {key}")
                else:
                    where = f"{path}, annotation {number} (of image_id {key}),"
                    captions[key].append(take_text(annotation["caption"], where, "caption"))
            for image in images:
                if (name := self.name_image(image)) is not None:
                    file_name = take_text(image.get("file_name"), f"{path}, image {name},", "file_name")
                    yield Entry(name, captions[str(image["id"])], str(folder / file_name) if file_name else None)
        except KeyError as error:
            raise ValueError(f"{path} has a record without {error}; expected {_EXPECTED}.") from error

    def name_image(self, image: dict[str, object]) -> str | None:
        """Return the key of an image; ``None`` for an image of another part of the data set."""
        return str(image["id"])

    def reject(self, annotation: dict[str, object]) -> str:
        """Return the reason to skip an annotation, a plural noun phrase for the warning; empty if it is kept."""
        return ""
