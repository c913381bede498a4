"""Build parts from a description that came from somebody else, without running what it must not.

The command line's parser is no help here: to it any text may be the name of something to import, another file, or YAML.
Here a text is a text, and a class is what a mapping names by ``class_path``: of packages that are trusted, and of the
kind that the signature around it asks for.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from synth2_lightning.locations import PACKAGE_SCHEME

OWN_PACKAGE = "synth2_lightning"
_PLAIN = (str, int, float, bool, dict, list, tuple, set, object, Any)  # typing.Any is a class, too


def refuse_foreign_packages(description: Any, packages: Collection[str]) -> None:
    """Refuse a description that names classes or files of packages that are not trusted, before any is imported.

    Args:
        description: Plain values, nested; a ``class_path`` names a class, ``package://`` a file of a package.
        packages: Names of packages that are trusted besides this one.

    Raises:
        ValueError: If it names others, with what it names of them.

    Example:
        >>> refuse_foreign_packages({"class_path": "synth2_lightning.testing.TinyDecoder"}, [])
    """
    trusted = {OWN_PACKAGE, *packages}
    foreign = {name: package for name, package in _list_names(description) if package not in trusted}
    if foreign:
        wanted = sorted(set(foreign.values()))
        raise ValueError(
            f"The model's description names {', '.join(map(repr, sorted(foreign)))}, and to load it would run code of "
            f"{', '.join(map(repr, wanted))}. Expected parts of {', '.join(map(repr, sorted(trusted)))} only. If you "
            f"know that code and trust it, say so: load_exported(..., packages={wanted})."
        )


def list_packages(description: Any) -> set[str]:
    """List the packages whose classes or files a description names.

    Example:
        >>> list_packages({"class_path": "mine.Decoder", "init_args": {"words": "package://ours/words"}}) == {
        ...     "mine", "ours"
        ... }
        True
    """
    return {package for _, package in _list_names(description)}


def build_part(description: Any, expected: Any, packages: Collection[str] = (), where: str = "model") -> Any:
    """Build what a description says, as the command line would build it from a run file.

    Args:
        description: A mapping with ``class_path`` and ``init_args`` where ``expected`` is a class, or a callable that
            gives one (then a factory is made); a mapping of arguments where it is a dataclass; else a plain value.
        expected: Type hint of the place where it goes.
        packages: Names of packages that are trusted besides this one.
        where: Name of the place, for messages.

    Raises:
        ValueError: If it names what is not trusted, not there, or not of the expected kind.

    Example:
        >>> from synth2_lightning.interfaces import ResamplerFactory
        >>> description = {"class_path": "synth2_lightning.testing.TinyResampler"}
        >>> build_part(description, ResamplerFactory)(6, 8).num_queries
        4
    """
    kinds = _alternatives(expected)
    parts = {kind: part for kind in kinds if (part := _part_of(kind)) is not None}
    if isinstance(description, Mapping) and "class_path" in description and parts:
        refuse_foreign_packages(description["class_path"], packages)
        part = _find_class(description["class_path"], tuple(parts.values()), where)
        arguments = _build_arguments(part, description, packages, where)
        is_factory = not any(inspect.isclass(kind) and issubclass(part, kind) for kind in parts)
        return partial(part, **arguments) if is_factory else _call(part, arguments, where)
    for kind in kinds:
        if isinstance(description, Mapping) and inspect.isclass(kind) and is_dataclass(kind):
            return _call(kind, _build_arguments(kind, {"init_args": description}, packages, where), where)
        if isinstance(description, Sequence) and not isinstance(description, str):
            origin, inner = get_origin(kind), (get_args(kind) or (Any,))
            if origin in (list, tuple, Sequence):
                hints = inner if origin is tuple and Ellipsis not in inner else (inner[0],) * len(description)
                built = [build_part(*pair, packages, where) for pair in zip(description, hints, strict=False)]
                return built if origin is list else tuple(built)
    if description is not None and parts and len(parts) == len([kind for kind in kinds if kind is not NoneType]):
        raise ValueError(f"{where} is {description!r}; expected a mapping with 'class_path' and 'init_args'.")
    return description


def _list_names(description: Any) -> Iterator[tuple[str, str]]:
    """Yield every name of a class or file with its package; the description itself may be the name of a class."""
    if isinstance(description, Mapping):
        for key, value in description.items():
            if key == "class_path":
                yield str(value), str(value).partition(".")[0]
            else:
                yield from _list_names(value) if not isinstance(value, str) else _list_files(value)
    elif isinstance(description, str):
        yield description, description.partition(".")[0]
    elif isinstance(description, Sequence):
        for value in description:
            yield from _list_names(value) if not isinstance(value, str) else _list_files(value)


def _list_files(text: str) -> Iterator[tuple[str, str]]:
    if text.startswith(PACKAGE_SCHEME):
        yield text, text.removeprefix(PACKAGE_SCHEME).partition("/")[0].partition(".")[0]


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _part_of(kind: Any) -> type | None:
    """Give the class that a place holds, or that a factory at this place makes; none where plain values go."""
    if get_origin(kind) is Callable:
        kind = get_args(kind)[1]
    if not inspect.isclass(kind) or kind in (*_PLAIN, NoneType) or is_dataclass(kind):
        return None
    return kind


def _find_class(class_path: str, expected: tuple[type, ...], where: str) -> type:
    module_name, _, name = class_path.rpartition(".")
    try:
        found = getattr(import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{where} is said to be {class_path!r}, which is not there ({error}). Expected a class of this version of "
            "its package: install the version that the description names under 'versions'."
        ) from error
    if not inspect.isclass(found) or not issubclass(found, expected):
        kinds = " or ".join(kind.__name__ for kind in expected)
        raise ValueError(f"{where} is said to be {class_path!r}, which is no {kinds}; expected a class under it.")
    return found


def _build_arguments(
    part: type, description: Mapping[str, Any], packages: Collection[str], where: str
) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for base in reversed(part.__mro__):  # heads that add one argument take the others by **kwargs
        if "__init__" in vars(base):
            hints |= get_type_hints(vars(base)["__init__"])
    arguments = {**(description.get("init_args") or {}), **(description.get("dict_kwargs") or {})}
    return {
        name: build_part(value, hints.get(name, Any), packages, f"{where}.{name}") for name, value in arguments.items()
    }


def _call(part: type, arguments: dict[str, Any], where: str) -> Any:
    try:
        inspect.signature(part).bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"{where} cannot be built: {part.__name__} takes other arguments ({error}). Expected a description that "
            "this version of its package wrote: install the one that it names under 'versions'."
        ) from error
    return part(**arguments)
