"""Comparison of the settings of a folder with those of a run that resumes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def check_same_settings(folder: Path, found: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Check that the records of a folder were made with the settings of this run.

    Args:
        folder: The folder, for the message.
        found: Settings of its parts.
        given: Settings of this run.

    Raises:
        ValueError: If they differ, with every difference.

    Example:
        >>> check_same_settings(Path("shards"), {"data": {"seed": 0}}, {"data": {"seed": 0}})
    """
    before, now = _flatten(found), _flatten(given)
    differences = [
        f"{name} is {_show(before, name)} there and {_show(now, name)} in this run"
        for name in sorted(before.keys() | now.keys())
        if _show(before, name) != _show(now, name)
    ]
    if differences:
        raise ValueError(
            f"The records in {folder} were made with other settings: {'; '.join(differences)}. Expected one set of "
            "settings per folder. Restore the settings to resume, choose another folder, or delete this one."
        )


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _show(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "not set"
