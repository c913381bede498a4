"""Class specs: descriptions of components by ``class_path`` and ``init_args``, built without running foreign code.

Checkpoints, run folders and exports that come from somebody else hold such specs. The command line's parser is no help
there: to it any text may be the name of something to import, another file, or YAML. Here a text is a text, and a class
is what a mapping names by ``class_path``: of a trusted package, and a subclass of the type of its place. Under ``Any``
a class spec is data.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from torch import Tensor

from synth2_lightning.io.trusted_packages import refuse_foreign_packages

_MAX_VALUES, _MAX_DEPTH = 100_000, 100
_PLAIN = (str, int, float, bool, dict, list, tuple, set, object, Any)  # typing.Any is a class, too


def find_class(class_path: Any, expected: type | tuple[type, ...], where: str) -> type:
    """Import a class of a trusted package.

    Args:
        class_path: Its full name.
        expected: What it must be a subclass of.
        where: Name of the place, for messages.

    Raises:
        ValueError: If its package is not trusted, it is not there, or it is not such a subclass.

    Example:
        >>> find_class("torch.optim.AdamW", object, "optimizer").__name__
        'AdamW'
    """
    refuse_foreign_packages({"class_path": class_path})
    module_name, _, name = str(class_path).rpartition(".")
    try:
        if "__main__" in module_name.split("."):
            raise ImportError("it is a program, which would run")
        found = getattr(import_module(module_name), name)
    except (Exception, SystemExit) as error:  # whatever a module that nobody imports lacks, or does
        raise ValueError(
            f"{where} has the class_path {class_path!r}, which does not exist ({error}). Expected a class of this "
            "version of its package: install the version that the description names under 'versions'."
        ) from error
    kinds = expected if isinstance(expected, tuple) else (expected,)
    if not inspect.isclass(found) or not issubclass(found, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{where} has the class_path {class_path!r}, which is no {names}; expected a subclass of it.")
    # A module of a trusted package may hold names that it imported from elsewhere.
    refuse_foreign_packages({"class_path": f"{found.__module__}.{found.__qualname__}"})
    return found


def build_part(description: Any, expected: Any, where: str = "model") -> Any:
    """Build what a description says, as the command line would build it from a run file.

    Args:
        description: A mapping with ``class_path`` and ``init_args`` where ``expected`` is a class, or a callable that
            gives one (then a factory is made); a mapping of arguments where it is a dataclass; else a plain value.
        expected: Type hint of the place where it goes.
        where: Name of the place, for messages.

    Raises:
        ValueError: If it names what is not trusted, not there, or not of the expected type.

    Example:
        >>> from synth2_lightning.interfaces import ResamplerFactory
        >>> description = {"class_path": "synth2_lightning.testing.TinyResampler"}
        >>> build_part(description, ResamplerFactory)(6, 8).num_latents
        4
    """
    kinds = _alternatives(expected)
    parts = {kind: part for kind in kinds if (part := _part_of(kind)) is not None}
    if isinstance(description, tuple(parts.values())) or callable(description):
        return description  # built already
    if isinstance(description, Mapping) and "class_path" in description and parts:
        part = find_class(description["class_path"], tuple(parts.values()), where)
        given = _read_arguments(description, where)
        is_factory = not any(inspect.isclass(kind) and issubclass(part, kind) for kind in parts)
        return partial(part, **_build_arguments(part, given, where)) if is_factory else build_class(part, given, where)
    for kind in kinds:
        if isinstance(description, Mapping) and inspect.isclass(kind) and is_dataclass(kind):
            return build_class(kind, description, where)
        if isinstance(description, Sequence) and not isinstance(description, str):
            origin, inner = get_origin(kind), (get_args(kind) or (Any,))
            if origin in (list, tuple, Sequence):
                hints = inner if origin is tuple and Ellipsis not in inner else (inner[0],) * len(description)
                built = [build_part(*pair, where) for pair in zip(description, hints, strict=False)]
                return built if origin is list else tuple(built)
    if description is not None and parts and len(parts) == len([kind for kind in kinds if kind is not NoneType]):
        raise ValueError(f"{where} is {description!r}; expected a mapping with 'class_path' and 'init_args'.")
    return description


def build_class(part: type, given: Mapping[str, Any], where: str) -> Any:
    """Build an object of a class, and its arguments as :func:`build_part` does.

    Args:
        part: The class.
        given: Its arguments by name; what is built already is taken as it is.
        where: Name of the place, for messages.

    Raises:
        ValueError: If it takes other arguments, or one of them cannot be built.

    Example:
        >>> from synth2_lightning.types import GenerationSettings
        >>> build_class(GenerationSettings, {"num_beams": 3}, "generation").num_beams
        3
    """
    arguments = _build_arguments(part, given, where)
    try:
        inspect.signature(part).bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"{where} cannot be built: {part.__name__} takes other arguments ({error}). Expected a description that "
            "this version of its package wrote: install the one that it names under 'versions'."
        ) from error
    try:
        return part(**arguments)
    # A value of another type than expected, or a size that no memory holds, for which torch has a RuntimeError.
    except (TypeError, AttributeError, LookupError, ArithmeticError, MemoryError, RuntimeError) as error:
        raise ValueError(
            f"{where} cannot be built: {part.__name__} refuses its arguments ({type(error).__name__}: {error}). "
            "Expected a description as `synth2 fit` or `synth2 export` wrote it."
        ) from error


def copy_plain(description: Any, what: str) -> Any:
    """Copy a description as plain values: dictionaries, lists, texts, numbers, booleans and ``None``.

    Args:
        description: Nested; paths become texts, objects that hold settings dictionaries.
        what: What it describes, for messages.

    Raises:
        ValueError: If it holds anything else, nests deeper than 100 levels, or has more than 100,000 values: a few
            lines of a file can refer to each other so that they multiply beyond any memory.

    Example:
        >>> copy_plain({"folder": Path("runs"), "sizes": (1, 2)}, "example")
        {'folder': 'runs', 'sizes': [1, 2]}
    """
    count = 0

    def copy(value: Any, depth: int) -> Any:
        nonlocal count
        count += 1
        if count > _MAX_VALUES or depth > _MAX_DEPTH:
            raise ValueError(
                f"{what} has more than {_MAX_VALUES:,} values, or nests deeper than {_MAX_DEPTH} levels; expected the "
                "settings of a model, which are a few hundred. It was not read."
            )
        if value is None or isinstance(value, str | int | float):
            return value
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, list | tuple | set | frozenset):
            return [copy(each, depth + 1) for each in value]
        items = value if isinstance(value, Mapping) else getattr(value, "__dict__", None)
        if items is None or isinstance(value, Tensor):
            raise ValueError(f"{what} holds a {type(value).__name__}; expected plain values only.")
        return {str(key): copy(each, depth + 1) for key, each in items.items()}

    return copy(description, 0)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _part_of(kind: Any) -> type | None:
    """Give the class that a place holds, or that a factory at this place makes; none where plain values go."""
    if get_origin(kind) is Callable:
        kind = get_args(kind)[1]
    if not inspect.isclass(kind) or kind in (*_PLAIN, NoneType) or is_dataclass(kind):
        return None
    return kind


def _read_arguments(description: Mapping[str, Any], where: str) -> dict[str, Any]:
    given = [description.get(name) or {} for name in ("init_args", "dict_kwargs")]
    if wrong := [each for each in given if not isinstance(each, Mapping)]:
        raise ValueError(f"{where} has the arguments {wrong[0]!r}; expected a mapping of names to values.")
    return {name: value for each in given for name, value in each.items()}


def _build_arguments(part: type, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for base in reversed(part.__mro__):  # heads that add one argument take the others by **kwargs
        if "__init__" in vars(base):
            with suppress(NameError, TypeError):  # hints that only a type checker can read: its arguments stay plain
                hints |= get_type_hints(vars(base)["__init__"])
    return {name: build_part(value, hints.get(name, Any), f"{where}.{name}") for name, value in given.items()}
