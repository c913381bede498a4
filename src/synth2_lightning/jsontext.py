"""JSON from anywhere: what is no JSON, or nests absurdly, is one kind of error."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synth2_lightning.files import require_file


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Args:
        text: The whole text.

    Raises:
        ValueError: If it is no JSON, or nests so deep that Python's parser would run out of stack.

    Example:
        >>> parse_json("[" * 100_000)
        Traceback (most recent call last):
        ValueError: it nests too deep
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deep") from None


def read_description(path: Path, fields: Mapping[str, type], expected: str) -> dict[str, Any]:
    """Read a JSON object that describes a part of ours.

    Args:
        path: The file.
        fields: What it must hold, and of which types.
        expected: What writes such files, for the message.

    Raises:
        OSError: If it is a folder, a pipe or a device.
        ValueError: If it is no JSON, or lacks a field.
    """
    require_file(path)
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON ({error}); expected {expected}. Copy it again.") from error
    found: dict[str, Any] = content if isinstance(content, dict) else {}
    if wrong := [name for name, kind in fields.items() if not isinstance(found.get(name), kind)]:
        raise ValueError(f"{path} has no {wrong[0]!r}, or one that cannot be; expected {expected}. Copy it again.")
    return found
