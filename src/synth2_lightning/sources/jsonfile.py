"""Read a JSON index, or say what is wrong with it."""

import json
from pathlib import Path
from typing import Any


def read_json(path: Path, expected: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        expected: What it should hold, for the message.

    Raises:
        ValueError: If it is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
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
