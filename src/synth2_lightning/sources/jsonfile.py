"""Checked reading of JSON index files."""

from pathlib import Path
from typing import Any

from synth2_lightning.io.json_text import parse_json
from synth2_lightning.io.paths import require_file

_MAX_BYTES = 4 * 2**30


def read_json(path: Path, expected: str) -> Any:
    """Return the content of a JSON file.

    Args:
        path: The file.
        expected: Description of the expected content, for errors.

    Raises:
        OSError: If it is a folder, a pipe or a device.
        ValueError: If it is invalid JSON, too deeply nested, or larger than 4 GiB.
    """
    require_file(path)
    try:
        _check_size(path)
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); expected {expected}.") from error


def read_records(content: Any, field: str, path: Path, expected: str) -> list[dict[str, Any]]:
    """Return the list of objects under a field of a JSON object.

    Raises:
        ValueError: If the field is missing, or is not a list of objects.
    """
    records = content.get(field) if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{path} has no list of objects under {field!r}; expected {expected}.")
    return records


def read_id(record: dict[str, Any], field: str, path: Path, expected: str) -> str:
    """Return the id under a field of a record as a string.

    Raises:
        KeyError: If the field is missing.
        ValueError: If it is neither a string nor an integer.
    """
    value = record[field]
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError(f"{path} has {value!r:.80} under {field!r}; expected {expected}.")
    return str(value)


def _check_size(path: Path) -> None:
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise ValueError(f"it has {size} bytes, and more than {_MAX_BYTES} are refused to limit memory")
