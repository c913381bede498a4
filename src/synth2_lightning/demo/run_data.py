"""Training and validation data of a run, built from its run file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from synth2_lightning.export.runs import read_run_file
from synth2_lightning.io.class_specs import build_component, find_class


def build_data_component(folder: Path | None, expected: type, name: str = "") -> Any:
    """Build the first component of a run's data that is an instance of a class.

    Args:
        folder: Folder of the run.
        expected: The class.
        name: End of the component's key in the run file; all components match if empty.

    Returns:
        The component, not loaded; ``None`` if the run has no such component or no run file.

    Raises:
        ValueError: If the run file is damaged, or the component cannot be built or is of an untrusted package.

    Example:
        >>> from synth2_lightning.interfaces import ImageTextSource
        >>> build_data_component(None, ImageTextSource, "val") is None
        True
    """
    for where, description in _list_components(read_run_file(folder).get("data"), "data"):
        if not where.endswith(name):
            continue
        try:
            is_match = issubclass(find_class(description["class_path"], (object,), where), expected)
        except ValueError:  # not trusted, or not of this version
            if name:
                raise
            continue
        if is_match:
            return build_component(description, expected, where)
    return None


def _list_components(node: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping) and "class_path" in node:
        yield where, node
        arguments = node.get("init_args")
        for name, value in arguments.items() if isinstance(arguments, Mapping) else ():
            yield from _list_components(value, f"{where}.{name}")
