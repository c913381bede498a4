"""Search for photos with captions in a folder of any known layout."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from synth2_lightning.io.delimited import iterate_lines
from synth2_lightning.io.locations import resolve
from synth2_lightning.io.parquet import open_parquet
from synth2_lightning.io.tables import read_rows
from synth2_lightning.sources.base import ArrowSource
from synth2_lightning.sources.coco import CocoSource
from synth2_lightning.sources.folder import FolderSource
from synth2_lightning.sources.hub import HubSource
from synth2_lightning.sources.image_files import SUFFIXES, is_hidden
from synth2_lightning.sources.jsonfile import read_json
from synth2_lightning.sources.karpathy import KarpathySource
from synth2_lightning.sources.table import TableSource
from synth2_lightning.sources.webdataset import TarSource

EXPECTED = (
    "COCO captions JSON, Karpathy's dataset_*.json, a table (.csv, .tsv, .jsonl, .parquet) with a column of image "
    "files and one of captions, Parquet files with a column of images, tars of images and captions, or images with a "
    ".txt of captions beside each"
)
_TABLES = {".csv", ".tsv", ".jsonl", ".parquet"}
_CAPTION_COLUMNS = ("caption", "captions", "text", "description", "comment", "sentence", "title")
_MAX_DEPTH = 3
_MAX_INDEXES = 50
_NUM_ROWS = 20
_VAL = re.compile(r"(?<![a-z])(val|valid|validation|dev)(?![a-z])", re.IGNORECASE)
_TEST = re.compile(r"(?<![a-z])test(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source and its arguments, as a run file has them.

    Args:
        source: The class.
        arguments: Its arguments.
        layout: What it reads, for messages.
    """

    source: type[ArrowSource]
    arguments: dict[str, Any]
    layout: str

    def build(self) -> ArrowSource:
        """Return the source."""
        return self.source(**self.arguments)

    def to_settings(self) -> dict[str, Any]:
        """Return ``class_path`` and ``init_args``."""
        return {"class_path": f"{self.source.__module__}.{self.source.__name__}", "init_args": self.arguments}


@dataclass(frozen=True, slots=True)
class Layout:
    """Photos with captions.

    Args:
        train: Photos of the training, or all photos.
        val: Photos of the validation; ``None`` if the data have no such split.
        unused: Further photos with captions, such as those of a test split.
    """

    train: SourceSpec
    val: SourceSpec | None
    unused: tuple[SourceSpec, ...] = ()


def find_layout(location: str) -> Layout:
    """Return the photos and captions in a folder, or those of an index file.

    Of several sources, one is used for each split. Files whose names contain ``val`` or ``dev`` as a word are the
    validation split; those of a test split are left out.

    Raises:
        FileNotFoundError: If the location does not exist, or there are no photos with captions.
        ValueError: If an index is damaged.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "a.jpg").touch(), (Path(folder) / "a.txt").write_text("a dog")
        ...     find_layout(folder).train.layout
        'images with a .txt of captions each'
    """
    path = resolve(location, "data")
    root = path.parent if path.is_file() else path
    files = [path] if path.is_file() else list(_walk(root))
    for find in (_find_json, _find_embedded, _find_tables, _find_tars, _find_texts):
        if specs := find(root, files):
            return _split(specs)
    images = sum(file.suffix.lower() in SUFFIXES for file in files)
    raise FileNotFoundError(
        f"{path} has {images} images, but no captions of images; expected {EXPECTED}, in it or at most {_MAX_DEPTH} "
        "folders deep."
    )


def _walk(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        inner = path.relative_to(root)
        if len(inner.parts) <= _MAX_DEPTH and not is_hidden(inner) and path.is_file():
            yield path


def _split(specs: list[tuple[str, SourceSpec]]) -> Layout:
    """Return the layout of the sources of one kind, by the names of their files."""
    kept = [(name, spec) for name, spec in specs if not _TEST.search(name)] or specs
    val = next((spec for name, spec in kept if _VAL.search(name)), None)
    train = next((spec for name, spec in kept if not _VAL.search(name)), None)
    used = (train or kept[0][1], val if train else None)
    return Layout(*used, tuple(spec for _, spec in specs if spec not in used))


def _find_json(root: Path, files: Sequence[Path]) -> list[tuple[str, SourceSpec]]:
    found = []
    for path in [file for file in files if file.suffix.lower() == ".json"][:_MAX_INDEXES]:
        content = read_json(path, EXPECTED)
        images = content.get("images") if isinstance(content, dict) else None
        if not isinstance(images, list) or not images or not isinstance(images[0], dict):
            continue
        if "sentences" in images[0]:
            return _find_karpathy(root, path, images)
        annotations = content.get("annotations")
        if isinstance(annotations, list) and annotations and _has_caption(annotations[0]):
            folder = _find_folder(root, path, [str(image.get("file_name")) for image in images[:_NUM_ROWS]])
            arguments = {"annotations": str(path), "images": str(folder), "name": "photos"}
            found.append((path.name, SourceSpec(CocoSource, arguments, f"COCO captions in {path}")))
    return found


def _has_caption(annotation: object) -> bool:
    return isinstance(annotation, dict) and "caption" in annotation


def _find_karpathy(root: Path, path: Path, images: list[dict[str, Any]]) -> list[tuple[str, SourceSpec]]:
    names = [f"{image.get('filepath', '')}/{image.get('filename')}".lstrip("/") for image in images[:_NUM_ROWS]]
    folder = str(_find_folder(root, path, names))
    present = {str(image.get("split")) for image in images}
    wanted = {"train": ["train", "restval"], "val": ["val"]}
    specs = []
    for name, splits in wanted.items():
        if kept := [split for split in splits if split in present]:
            arguments = {"file": str(path), "images": folder, "splits": kept, "name": "photos"}
            specs.append((name, SourceSpec(KarpathySource, arguments, f"{' and '.join(kept)} of {path}")))
    return specs


def _find_embedded(root: Path, files: Sequence[Path]) -> list[tuple[str, SourceSpec]]:
    """Return sources of Parquet files that hold the images, as ``datasets`` writes them; it finds their splits."""
    tables = [file for file in files if file.suffix.lower() == ".parquet"]
    columns = next(filter(None, map(_find_image_and_caption, tables[:_MAX_INDEXES])), None)
    if columns is None:
        return []
    image_column, caption_column = columns
    location = files[0] if len(files) == 1 else root
    splits = ["train"] if location.is_file() else _name_splits(root)
    kept = [split for split in splits if not _TEST.search(split)] or splits
    if not any(_VAL.search(split) for split in kept):
        kept = [f"{kept[0]}[:90%]", f"{kept[0]}[90%:]"]  # in the order of the rows
    columns_of = {"image_column": image_column, "caption_column": caption_column}
    return [
        (
            "val" if _VAL.search(split) or split.endswith("[90%:]") else split,
            SourceSpec(
                HubSource,
                {"path": str(location), "split": split, **columns_of, "name": "photos"},
                f"{split} of {location}, columns {image_column!r} and {caption_column!r}",
            ),
        )
        for split in kept
    ]


def _find_image_and_caption(table: Path) -> tuple[str, str] | None:
    """Return the column of the images and that of the captions, if there is one of each."""
    with open_parquet(table, "") as file:
        schema = file.schema_arrow
        texts = [field.name for field in schema if _is_text(field.type)]
        rows = next(file.iter_batches(_NUM_ROWS, columns=texts), None)
    images = [field.name for field in schema if _is_image(field.type)]
    if not images or rows is None or not rows.column_names:
        return None
    by_name = [name for known in _CAPTION_COLUMNS for name in rows.column_names if name.strip().lower() == known]
    words = {name: sum(len(str(value).split()) for value in rows[name].to_pylist()) for name in rows.column_names}
    return images[0], by_name[0] if by_name else max(words, key=words.__getitem__)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return {field.name for field in kind} == {"bytes", "path"}  # as datasets.Image is stored
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _name_splits(folder: Path) -> list[str]:
    import datasets

    return list(datasets.get_dataset_split_names(str(folder)))


def _find_tables(root: Path, files: Sequence[Path]) -> list[tuple[str, SourceSpec]]:
    found = []
    for path in [file for file in files if file.suffix.lower() in _TABLES][:_MAX_INDEXES]:
        delimiter = _find_delimiter(path)
        columns = _read_columns(path, delimiter)
        is_file = {
            name: all(Path(str(value)).suffix.lower() in SUFFIXES for value in values) and bool(values)
            for name, values in columns.items()
        }
        file_column = next((name for name, yes in is_file.items() if yes), None)
        texts = [name for name, yes in is_file.items() if not yes and columns[name]]
        by_name = [name for known in _CAPTION_COLUMNS for name in texts if name.strip().lower() == known]
        words = {name: sum(len(str(value).split()) for value in columns[name]) for name in texts}
        if file_column is None or not texts:
            continue
        caption_column = by_name[0] if by_name else max(texts, key=words.__getitem__)
        folder = _find_folder(root, path, [str(value) for value in columns[file_column]])
        arguments: dict[str, Any] = {"table": str(path), "images": str(folder), "name": "photos"}
        arguments |= {"file_column": file_column, "caption_column": caption_column}
        if delimiter is not None:
            arguments["delimiter"] = delimiter
        layout = f"columns {file_column!r} and {caption_column!r} of {path}"
        found.append((path.relative_to(root).as_posix(), SourceSpec(TableSource, arguments, layout)))
    return found


def _find_delimiter(path: Path) -> str | None:
    """Return the delimiter of a .csv whose header has none of its own."""
    if path.suffix.lower() != ".csv":
        return None
    header = next(iterate_lines(path), "")
    return next((mark for mark in "|;\t" if mark in header and "," not in header), None)


def _read_columns(path: Path, delimiter: str | None) -> dict[str, list[Any]]:
    """Return the first values of each column."""
    names: list[str] = []
    if path.suffix.lower() == ".parquet":
        with open_parquet(path, "") as table:
            names = [field.name for field in table.schema_arrow if str(field.type) in ("string", "large_string")]
    columns: dict[str, list[Any]] = {}
    for row in islice(read_rows(path, names, delimiter), _NUM_ROWS):
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return columns


def _find_tars(root: Path, files: Sequence[Path]) -> list[tuple[str, SourceSpec]]:
    """Return sources of the tars; without a split in their names, the last tar is the validation split."""
    tars = [
        file for file in files if file.suffix.lower() == ".tar" and not _TEST.search(file.relative_to(root).as_posix())
    ]
    val = [tar for tar in tars if _VAL.search(tar.relative_to(root).as_posix())] or tars[1:][-1:]
    parts = {"train": [tar for tar in tars if tar not in val], "val": val}
    return [
        (name, SourceSpec(TarSource, {"tars": list(map(str, part)), "name": "photos"}, f"{len(part)} tars in {root}"))
        for name, part in parts.items()
        if part
    ]


def _find_texts(root: Path, files: Sequence[Path]) -> list[tuple[str, SourceSpec]]:
    images = {file.with_suffix("") for file in files if file.suffix.lower() in SUFFIXES}
    described = {file.parent for file in files if file.suffix.lower() == ".txt" and file.with_suffix("") in images}
    if not described:
        return []
    parts = {root / folder.relative_to(root).parts[0] for folder in described if folder != root}
    are_splits = root not in described and any(_VAL.search(part.name) for part in parts) and len(parts) > 1
    return [
        (
            part.name,
            SourceSpec(FolderSource, {"images": str(part), "name": "photos"}, "images with a .txt of captions each"),
        )
        for part in (sorted(parts) if are_splits else [root])
    ]


def _find_folder(root: Path, index: Path, names: Sequence[str]) -> Path:
    """Return the folder that has the most of the named images.

    Raises:
        FileNotFoundError: If no folder has one of them.
    """
    folders = [index.parent, root, *(path for path in sorted(root.rglob("*")) if path.is_dir())]
    best = max(folders, key=lambda folder: sum((folder / name).is_file() for name in names))
    if not any((best / name).is_file() for name in names):
        raise FileNotFoundError(
            f"{index} names images such as {names[0]!r}, which is in no folder of {root}. Expected the images below "
            "that folder; move or link them there."
        )
    return best
