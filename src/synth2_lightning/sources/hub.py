"""Pictures with captions from the Hugging Face Hub, or from a file or folder that ``datasets`` can read."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from synth2_lightning.files import expand_home
from synth2_lightning.fingerprints import fingerprint_file, fingerprint_texts
from synth2_lightning.locations import resolve
from synth2_lightning.remote import is_remote
from synth2_lightning.sources.base import Entry, IndexedSource, LeftOut
from synth2_lightning.sources.picture_files import is_hidden
from synth2_lightning.sources.pictures import decode_picture
from synth2_lightning.tables import read_rows, take_text

_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".arrow": "arrow"}


class HubSource(IndexedSource):
    """Pictures and captions of one split of a ``datasets`` dataset; the key is the row's number.

    What ``datasets`` keeps in its cache of files and folders that lie here is told apart by their content, which is
    read once for it: what was made anew under the same names is read anew.

    Args:
        path: Id on the Hub, or the location of a folder, or of a Parquet, JSON, CSV or Arrow file.
        split: The split, such as ``"train"``, or a part of it, such as ``"train[:10%]"``.
        image_column: Column of the pictures.
        caption_column: Column of the captions, each a text or a list of texts; ``sentences.raw`` is the field ``raw``
            of the records in the column ``sentences``.
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
            ValueError: If it has no such split or column, or a row holds something else than texts.
        """
        import datasets

        rows = self._open()
        column, _, field = self.caption_column.partition(".")
        if self.caption_column in rows.column_names:
            column, field = self.caption_column, ""
        if missing := {self.image_column, column} - set(rows.column_names):
            raise ValueError(
                f"{self.path} has no column {sorted(missing)}; it has {sorted(rows.column_names)}. Set image_column "
                "and caption_column to what it has."
            )
        # Decoding is ours: so that a damaged picture is named and counted as in any other source.
        pictures = rows.select_columns([self.image_column])
        try:
            self._pictures = pictures.cast_column(self.image_column, datasets.Image(decode=False))
        except (pa.ArrowException, TypeError) as error:
            raise ValueError(
                f"{self.path} has {rows.features[self.image_column]} under {self.image_column!r} ({error}); expected "
                "pictures, their bytes or their paths. Name another image_column."
            ) from error
        for index, captions in enumerate(rows[column]):
            yield Entry(
                str(index), _take_texts(captions, field, f"{self.path}[{self.split}], row {index},", column), index
            )

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
        local = resolve(self.path, f"dataset of source {self.name!r}") if is_address else expand_home(self.path)
        for table in [local] if local.is_file() else sorted(local.rglob("*")):
            if table.suffix.lower() in {".csv", ".tsv"} and not is_hidden(table.relative_to(local)):
                _refuse_swallowed_rows(table)
        if local.is_dir():
            return self._read(str(local), revision=self.revision, cache_dir=_cache_folder(local))
        if not local.is_file():
            return self._read(self.path, revision=self.revision)
        if local.suffix.lower() not in _BUILDERS:
            raise ValueError(f"{local} is of no kind that can be read; expected one of {sorted(_BUILDERS)}.")
        split = self.split.partition("[")[0]  # a file is one split, of whatever name; "train[:10%]" is a part of it
        return self._read(
            _BUILDERS[local.suffix.lower()], data_files={split: str(local)}, cache_dir=_cache_folder(local)
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
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:500]
            raise ValueError(
                f"The split {self.split!r} of the dataset {self.path!r} of source {self.name!r} cannot be read: "
                f"{reason} Expected a split that it has."
            ) from error
        except OSError as error:
            raise FileNotFoundError(
                f"The dataset {self.path!r} of source {self.name!r} is neither a local file or folder nor on the Hub, "
                f"or the Hub cannot be reached ({error}). Expected one of the three; without a network, download it "
                "elsewhere and name its folder."
            ) from error


def _refuse_swallowed_rows(table: Path) -> None:
    """Read a table by our rules, because ``datasets`` gives fewer rows where a quotation mark swallows some."""
    for number, row in enumerate(read_rows(table, []), start=1):
        if table.suffix.lower() == ".tsv" and any((value or "").startswith('"') for value in row.values()):
            raise ValueError(
                f"{table}, record {number}, has a field that begins with a quotation mark as part of the text, for "
                "which `datasets` would read several rows as one. Read it by TableSource, which takes it as it is, or "
                "write it as .jsonl."
            )


def _take_texts(value: Any, field: str, where: str, column: str) -> list[str]:
    """Return the texts of a row; an empty one stands for each that is missing from a list."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not field:
        for member in values:
            _refuse_record(member, where, column)
        return [take_text(member, where, column) for member in values]
    texts: list[str] = []
    for record in values:
        if record is not None and (not isinstance(record, dict) or field not in record):
            raise ValueError(
                f"{where} holds {record!r:.80} under {column!r}; expected records with a field {field!r}, as "
                f"caption_column='{column}.{field}' says. Name what the column has."
            )
        texts += _take_texts(None if record is None else record[field], "", where, f"{column}.{field}") or [""]
    return texts


def _refuse_record(value: Any, where: str, column: str) -> None:
    if isinstance(value, dict):
        likely = [name for name, member in value.items() if isinstance(member, str | list)] or list(value)
        raise ValueError(
            f"{where} holds {value!r:.80} under {column!r}; expected a text or a list of texts. Name the field of the "
            f"records that holds them, one of {likely}, as in caption_column='{column}.{next(iter(likely), 'raw')}'."
        )


def _cache_folder(local: Path) -> str:
    """Give the cache of a file or folder by its content; that of ``datasets`` itself goes by name and time."""
    import datasets

    files = sorted(path for path in local.rglob("*") if path.is_file()) if local.is_dir() else [local]
    content = (text for path in files for text in (str(path.relative_to(local)), fingerprint_file(path)))
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "synth2_files" / fingerprint_texts(content))
