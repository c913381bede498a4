"""Caption files of any supported format as Arrow tables."""

import json
from pathlib import Path

import pyarrow as pa

from synth2_lightning.io.json_text import REPLACEMENT
from synth2_lightning.io.parquet import read_parquet
from synth2_lightning.io.tables import read_lines, read_rows, take_text
from synth2_lightning.sources.base import warn_of_damaged
from synth2_lightning.sources.jsonfile import read_json, read_records

CAPTION_SET_TABLE = "captions.parquet"
_EXPECTED = "COCO captions, a list 'annotations' whose members have a 'caption'"


def read_caption_rows(path: Path) -> pa.Table:
    r"""Return a caption file as a table, with all of its columns.

    Args:
        path: Folder of a caption set, whose ``captions.parquet`` is read; ``.parquet``, ``.csv``, ``.tsv`` or
            ``.jsonl`` with a column ``caption``; ``.json`` in COCO's format, one row per annotation; any other file is
            plain text with one caption per line.

    Returns:
        One row per caption, in the order of the file, empty captions included.

    Raises:
        FileNotFoundError: If it is a folder without ``captions.parquet``.
        ValueError: If the file is damaged, or a caption is not a string.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "captions.txt"
        ...     _ = path.write_text("a red circle\na fox\n")
        ...     read_caption_rows(path)["caption"].to_pylist()
        ['a red circle', 'a fox']
    """
    path = find_caption_file(path)
    match path.suffix.lower():
        case ".json":
            table = _to_table(read_records(read_json(path, _EXPECTED), "annotations", path, _EXPECTED), path)
        case ".parquet":
            table = read_parquet(path)
        case ".csv" | ".tsv" | ".jsonl":
            table = _to_table(list(read_rows(path, ["caption"])), path)
        case _:
            table = pa.table({"caption": pa.array(read_lines(path), pa.string())})
    check_caption_column(table.schema, path)
    captions = enumerate(table["caption"].to_pylist(), start=1)
    warn_of_damaged(str(path), [f"record {number}" for number, text in captions if REPLACEMENT in (text or "")])
    return table


def find_caption_file(path: Path) -> Path:
    """Return the path of a caption file; for a folder, that of its ``captions.parquet``.

    Raises:
        FileNotFoundError: If the folder has no ``captions.parquet``.
    """
    if not path.is_dir():
        return path
    file = path / CAPTION_SET_TABLE
    if not file.is_file():
        raise FileNotFoundError(
            f"The folder {path} has no {CAPTION_SET_TABLE}, so it is not a finished caption set. Expected the output "
            "of `synth2 predict --config captions.yaml`; if that run was interrupted, run it again to resume it."
        )
    return file


def _to_table(rows: list[dict[str, object]], path: Path) -> pa.Table:
    for number, row in enumerate(rows, start=1):
        take_text(row.get("caption"), f"{path}, record {number},", "caption")
    names = dict.fromkeys(name for row in rows for name in row)  # a JSON object may lack fields of others
    return pa.table({name: _to_column([row.get(name) for row in rows]) for name in names})


def _to_column(values: list[object]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # values of mixed types are stored as JSON strings
        return pa.array([value if isinstance(value, str) else json.dumps(value) for value in values], pa.string())


def check_caption_column(schema: pa.Schema, path: Path) -> None:
    """Check that a table has a string column ``caption``.

    Raises:
        ValueError: If the column is missing or has another type.
    """
    if "caption" not in schema.names:
        raise ValueError(f"{path} has no captions; its columns are {schema.names}. Expected a column 'caption'.")
    found = schema.field("caption").type
    if not (pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_null(found)):
        raise ValueError(f"{path} has the type {found} under 'caption'; expected one string per row.")
