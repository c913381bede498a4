"""Pictures with captions from the Hugging Face Hub, or from a file or folder that ``datasets`` can read."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from synth2_lightning.fingerprints import fingerprint_file, fingerprint_texts
from synth2_lightning.locations import resolve
from synth2_lightning.remote import is_remote
from synth2_lightning.sources.base import Entry, IndexedSource, LeftOut
from synth2_lightning.sources.pictures import decode_picture

_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".arrow": "arrow"}


class HubSource(IndexedSource):
    """Pictures and captions of one split of a ``datasets`` dataset; the key is the row's number.

    What ``datasets`` keeps in its cache of files and folders that lie here is told apart by their content, which is
    read once for it: what was made anew under the same names is read anew.

    Args:
        path: Id on the Hub, or the location of a folder, or of a Parquet, JSON, CSV or Arrow file.
        split: The split, such as ``"train"``.
        image_column: Column of the pictures.
        caption_column: Column of the captions, each a text or a list of texts.
        revision: Branch, tag or commit on the Hub; name a commit where a run must be repeatable.
        name: Short name for logs.
        limit: Keep the first pictures only.

    Example:
        >>> HubSource("nlphuji/flickr30k", split="test", name="flickr30k").split
        'test'
    """

    def __init__(
        self,
        path: str,
        split: str,
        image_column: str = "image",
        caption_column: str = "caption",
        revision: str | None = None,
        name: str = "hub",
        limit: int | None = None,
    ) -> None:
        super().__init__(name, limit)
        self.path = path
        self.split = split
        self.image_column = image_column
        self.caption_column = caption_column
        self.revision = revision
        self._pictures: Any = None

    def read_index(self, left_out: LeftOut) -> Iterator[Entry]:
        """Go through the captions; the pictures stay where they are.

        Raises:
            FileNotFoundError: If there is no such dataset.
            ValueError: If it has no such split or column.
        """
        import datasets

        rows = self._open()
        if missing := {self.image_column, self.caption_column} - set(rows.column_names):
            raise ValueError(
                f"{self.path} has no column {sorted(missing)}; it has {sorted(rows.column_names)}. Set image_column "
                "and caption_column to what it has."
            )
        # Decoding is ours: so that a damaged picture is named and counted as in any other source.
        self._pictures = rows.select_columns([self.image_column]).cast_column(
            self.image_column, datasets.Image(decode=False)
        )
        for index, captions in enumerate(rows[self.caption_column]):
            texts = [captions] if isinstance(captions, str) else list(captions or ())
            yield Entry(str(index), texts, index)

    def read_picture(self, location: int) -> Image.Image:
        """Read a picture."""
        picture = self._pictures[location][self.image_column]
        name = f"{self.path}[{self.split}][{location}]"
        if picture is None:
            raise OSError(f"The picture {name} cannot be read: the row has none.")
        if picture["bytes"] is None:
            return decode_picture(Path(picture["path"]), f"{name} at {picture['path']}")
        return decode_picture(BytesIO(picture["bytes"]), name)

    def _open(self) -> Any:
        is_address = is_remote(self.path)
        local = resolve(self.path, f"dataset of source {self.name!r}") if is_address else Path(self.path).expanduser()
        if local.is_dir():
            return self._read(str(local), revision=self.revision, cache_dir=_cache_folder(local))
        if not local.is_file():
            return self._read(self.path, revision=self.revision)
        if local.suffix.lower() not in _BUILDERS:
            raise ValueError(f"{local} is of no kind that can be read; expected one of {sorted(_BUILDERS)}.")
        return self._read(
            _BUILDERS[local.suffix.lower()], data_files={self.split: str(local)}, cache_dir=_cache_folder(local)
        )

    def _read(self, path: str, **options: Any) -> Any:
        import datasets

        try:
            return datasets.load_dataset(path, split=self.split, **options)
        except (datasets.exceptions.DatasetBuildError, pa.ArrowException) as error:
            raise ValueError(
                f"The dataset {self.path!r} of source {self.name!r} is damaged ({error.__cause__ or error}). Expected "
                "whole files: copy or download it again."
            ) from error
        except OSError as error:
            raise FileNotFoundError(
                f"The dataset {self.path!r} of source {self.name!r} is neither a local file or folder nor on the Hub, "
                f"or the Hub cannot be reached ({error}). Expected one of the three; without a network, download it "
                "elsewhere and name its folder."
            ) from error


def _cache_folder(local: Path) -> str:
    """Give the cache of a file or folder by its content; that of ``datasets`` itself goes by name and time."""
    import datasets

    files = sorted(path for path in local.rglob("*") if path.is_file()) if local.is_dir() else [local]
    content = (text for path in files for text in (str(path.relative_to(local)), fingerprint_file(path)))
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "synth2_files" / fingerprint_texts(content))
