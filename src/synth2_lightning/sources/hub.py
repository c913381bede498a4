"""Images with captions from the Hugging Face Hub, or from a local file or folder that ``datasets`` reads."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from synth2_lightning.io.fingerprints import fingerprint_file, fingerprint_texts
from synth2_lightning.io.locations import resolve
from synth2_lightning.io.messages import one_line
from synth2_lightning.io.paths import expand_home
from synth2_lightning.io.remote import is_remote
from synth2_lightning.io.tables import read_rows, take_text
from synth2_lightning.sources.base import Entry, IndexedSource, SkipCounter
from synth2_lightning.sources.image_files import is_hidden
from synth2_lightning.sources.images import decode_image

_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".arrow": "arrow"}


class HubSource(IndexedSource):
    """Image source of one split of a ``datasets`` dataset; the key is split and row number, such as ``train/7``.

    A slice of a split has the keys of the split.

    The cache of local files and folders is keyed by their content, not by name and time: files that changed are read
    again.

    Args:
        path: Id on the Hub, or path or URL of a folder or of a Parquet, JSON, CSV or Arrow file.
        split: Split, such as ``"train"``, or a slice of it, such as ``"train[:10%]"``.
        image_column: Column of the images.
        caption_column: Column of the captions, each a string or a list of strings; ``sentences.raw`` is the field
            ``raw`` of the records in the column ``sentences``.
        revision: Branch, tag or commit on the Hub; use a commit for reproducible runs.
        name: Short name for logs.
        limit: Maximum number of images, from the first; ``None`` keeps all.

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
        self._images: Any = None

    def read_index(self, skipped: SkipCounter) -> Iterator[Entry]:
        """Yield the captions of all rows, without decoding images.

        Raises:
            FileNotFoundError: If the dataset does not exist.
            ValueError: If the split or a column does not exist, or a caption is not a string.
        """
        import datasets

        rows = self._open()
        column, _, field = self.caption_column.partition(".")
        if self.caption_column in rows.column_names:
            column, field = self.caption_column, ""
        if missing := {self.image_column, column} - set(rows.column_names):
            raise ValueError(
                f"{self.path} has no column {sorted(missing)}; it has {sorted(rows.column_names)}. Set image_column "
                "and caption_column to two of these."
            )
        # decode_image() decodes, so that damaged images are reported and counted as in the other sources.
        images = rows.select_columns([self.image_column])
        try:
            self._images = images.cast_column(self.image_column, datasets.Image(decode=False))
        except (pa.ArrowException, TypeError) as error:
            raise ValueError(
                f"{self.path} has {rows.features[self.image_column]} under {self.image_column!r} ({error}); expected "
                "images, their bytes or their paths. Set another image_column."
            ) from error
        for index, (key, captions) in enumerate(zip(_list_keys(rows), rows[column], strict=True)):
            where = f"{self.path}[{self.split}], row {index},"
            yield Entry(key, _take_texts(captions, field, where, column), index)

    def read_image(self, location: int) -> Image.Image:
        """Return the image of a row."""
        image = self._images[location][self.image_column]
        name = f"{self.path}[{self.split}][{location}]"
        if image is None or (image["bytes"] is None and not image["path"]):
            raise OSError(f"The image {name} cannot be read: the row has none; expected an image in every row.")
        if image["bytes"] is None:
            return decode_image(Path(image["path"]), f"{name} at {image['path']}")
        return decode_image(BytesIO(image["bytes"]), name)

    def _open(self) -> Any:
        is_address = is_remote(self.path)
        local = resolve(self.path, f"dataset of source {self.name!r}") if is_address else expand_home(self.path)
        for table in [local] if local.is_file() else sorted(local.rglob("*")):
            if table.suffix.lower() in {".csv", ".tsv"} and not is_hidden(table.relative_to(local)):
                _check_rows(table)
        if local.is_dir():
            return self._read(str(local), revision=self.revision, cache_dir=_cache_folder(local))
        if not local.is_file():
            return self._read(self.path, revision=self.revision)
        if local.suffix.lower() not in _BUILDERS:
            raise ValueError(f"{local} is of an unsupported kind; expected one of {sorted(_BUILDERS)}.")
        split = self.split.partition("[")[0]  # a file is one split of any name; "train[:10%]" is a slice of it
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
                "complete files: copy or download it again."
            ) from error
        except (ValueError, RuntimeError) as error:
            reason = one_line(error)
            raise ValueError(
                f"The split {self.split!r} of the dataset {self.path!r} of source {self.name!r} cannot be read: "
                f"{reason}. Expected one of its splits."
            ) from error
        except OSError as error:
            raise FileNotFoundError(
                f"The dataset {self.path!r} of source {self.name!r} is neither a local file or folder nor on the Hub, "
                f"or the Hub cannot be reached ({error}). Expected one of the three; without network access, download "
                "it elsewhere and give the path of its folder."
            ) from error


def _list_keys(rows: Any) -> Iterator[str]:
    import datasets

    sizes = {name: split.num_examples for name, split in rows.info.splits.items()}
    for part in datasets.ReadInstruction.from_spec(str(rows.split)).to_absolute(sizes):
        yield from (f"{part.splitname}/{row}" for row in range(part.from_, part.to))


def _check_rows(table: Path) -> None:
    """Check a table with :func:`read_rows`: ``datasets`` silently merges rows after an unmatched quotation mark."""
    for number, row in enumerate(read_rows(table, []), start=1):
        if table.suffix.lower() == ".tsv" and any((value or "").startswith('"') for value in row.values()):
            raise ValueError(
                f"{table}, record {number}, has a field that begins with a literal quotation mark; `datasets` would "
                "merge several rows into one there. Expected fields without it: use TableSource, which reads such "
                "tables, or convert the table to .jsonl."
            )


def _take_texts(value: object, field: str, where: str, column: str) -> list[str]:
    """Return the captions of a row; missing members of a list become empty strings."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not field:
        for member in values:
            _check_not_record(member, where, column)
        return [take_text(member, where, column) for member in values]
    texts: list[str] = []
    for record in values:
        if record is not None and (not isinstance(record, dict) or field not in record):
            raise ValueError(
                f"{where} has {record!r:.80} under {column!r}; expected records with a field {field!r}, because of "
                f"caption_column='{column}.{field}'. Set a field that the records have."
            )
        texts += _take_texts(None if record is None else record[field], "", where, f"{column}.{field}") or [""]
    return texts


def _check_not_record(value: object, where: str, column: str) -> None:
    if isinstance(value, dict):
        likely = [name for name, member in value.items() if isinstance(member, str | list)] or list(value)
        raise ValueError(
            f"{where} has {value!r:.80} under {column!r}; expected a string or a list of strings. Set the field with "
            f"the captions, one of {likely}, as in caption_column='{column}.{next(iter(likely), 'raw')}'."
        )


def _cache_folder(local: Path) -> str:
    """Return the cache folder of a local file or folder, keyed by content; ``datasets`` uses name and time."""
    import datasets

    files = sorted(path for path in local.rglob("*") if path.is_file()) if local.is_dir() else [local]
    content = (text for path in files for text in (str(path.relative_to(local)), fingerprint_file(path)))
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "synth2_files" / fingerprint_texts(content))
