"""Read a JSON index, or say what is wrong with it."""

from pathlib import Path
from typing import Any

from synth2_lightning.files import require_file
from synth2_lightning.jsontext import parse_json

_MAX_BYTES = 4 * 2**30


def read_json(path: Path, expected: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        expected: What it should hold, for the message.

    Raises:
        OSError: If it is a folder, a pipe or a device.
        ValueError: If it is no JSON, nests absurdly, or is absurdly large.
    """
    require_file(path)
    try:
        _refuse_huge(path)
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON ({error}); expected {expected}.") from error


def read_records(content: Any, field: str, path: Path, expected: str) -> list[dict[str, Any]]:
    """Take a list of objects out of a JSON object.

    Raises:
        ValueError: If the field is missing, or no list of objects.
    """
    records = content.get(field) if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{path} has no list of objects under {field!r}; expected {expected}.")
    return records


def read_id(record: dict[str, Any], field: str, path: Path, expected: str) -> str:
    """Take an id out of a record: a text or a whole number.

    Raises:
        KeyError: If the field is missing.
        ValueError: If it holds something else.
    """
    value = record[field]
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError(f"{path} has {value!r:.80} under {field!r}; expected {expected}.")
    return str(value)


def _refuse_huge(path: Path) -> None:
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise ValueError(f"it has {size} bytes, and more than {_MAX_BYTES} are refused, as they would fill the memory")
