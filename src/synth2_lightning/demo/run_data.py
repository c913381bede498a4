"""What a run learnt from, and what it was judged by, built again from its run file."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, cast

from synth2_lightning.sharing.parts import build_part, list_packages
from synth2_lightning.sharing.runs import read_run_file

Part = TypeVar("Part")


def build_data_part(folder: Path | None, expected: type[Part], name: str = "") -> Part | None:
    """Build the first part of a run's data that is of a class.

    Args:
        folder: Of the run.
        expected: The class, or one that it is a subclass of.
        name: What the run file calls the part; any name if empty.

    Returns:
        The part, not loaded; ``None`` where the run has none, or no run file lies beside its checkpoint.

    Raises:
        ValueError: If the run file is damaged, or the part cannot be built.

    Example:
        >>> from synth2_lightning.interfaces import ImageTextSource
        >>> build_data_part(None, ImageTextSource, "val") is None  # type: ignore[type-abstract]
        True
    """
    for where, description in _list_parts(read_run_file(folder).get("data"), "data"):
        if where.endswith(name) and issubclass(_find_class(description["class_path"]), expected):
            # The run itself was trained with this code, which its checkpoint imports, too.
            return cast(Part, build_part(description, expected, list_packages(description), where))
    return None


def _list_parts(node: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping) and "class_path" in node:
        yield where, node
        for name, value in (node.get("init_args") or {}).items():
            yield from _list_parts(value, f"{where}.{name}")


def _find_class(class_path: str) -> type:
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return type(None)
    return found if isinstance(found, type) else type(None)
