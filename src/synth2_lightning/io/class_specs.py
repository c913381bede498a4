"""Class specs: components described by ``class_path`` and ``init_args``, built without running untrusted code.

Checkpoints, run folders and exports from untrusted sources contain class specs. The parser of the command line is
unsafe for them: it may import a string, or read it as a file or as YAML. Here strings stay strings, and only a mapping
with ``class_path`` becomes an object: of a trusted package, and a subclass of the annotated type. Under ``Any`` a class
spec is data.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from functools import partial
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from synth2_lightning.io.trusted_packages import check_packages

_MAX_VALUES, _MAX_DEPTH = 100_000, 100
_PLAIN = (str, int, float, bool, dict, list, tuple, set, object, Any, NoneType)  # typing.Any is a class, too


def find_class(class_path: object, expected: tuple[type, ...], where: str) -> type:
    """Import a class of a trusted package.

    Args:
        class_path: Import path of the class.
        expected: Possible base classes.
        where: Position in the description, for messages.

    Raises:
        ValueError: If its package is not trusted, the class does not exist, or is not such a subclass.

    Example:
        >>> find_class("torch.optim.AdamW", (object,), "optimizer").__name__
        'AdamW'
    """
    check_packages({"class_path": class_path})
    module_name, _, name = str(class_path).rpartition(".")
    try:
        if "__main__" in module_name.split("."):
            raise ImportError("importing a program or notebook would run it; define the class in a package")
        found = getattr(import_module(module_name), name)
    except (Exception, SystemExit) as error:  # an import runs arbitrary code of the trusted package
        raise ValueError(
            f"{where} has the class_path {class_path!r}, which does not exist ({error}). Expected a class of the "
            "installed version of its package: install the version that the description lists under 'versions'."
        ) from error
    if not inspect.isclass(found) or not issubclass(found, expected):
        names = " or ".join(kind.__name__ for kind in expected)
        raise ValueError(f"{where} has the class_path {class_path!r}; expected a subclass of {names}.")
    # A module of a trusted package may contain names that it imported from other packages.
    check_packages({"class_path": f"{found.__module__}.{found.__qualname__}"})
    return found


def build_component(description: Any, expected: Any, where: str = "model") -> Any:
    """Build an object from its description, as the command line builds it from a run file.

    Args:
        description: A mapping with ``class_path`` and ``init_args`` if ``expected`` is a class, or a callable that
            returns one (the result is then a factory); a mapping of arguments if it is a dataclass; else a plain value.
        expected: Type hint of the argument.
        where: Position in the description, for messages.

    Raises:
        ValueError: If a class is not trusted, does not exist, or is not of the expected type.

    Example:
        >>> from synth2_lightning.interfaces import Resampler
        >>> build_component({"class_path": "synth2_lightning.testing.TinyResampler"}, Resampler).num_latents
        4
    """
    kinds = get_args(expected) if get_origin(expected) in (Union, UnionType) else (expected,)
    classes = {kind: found for kind in kinds if (found := _class_of(kind)) is not None}
    if isinstance(description, tuple(classes.values())) or callable(description):
        return description  # already built
    if isinstance(description, Mapping) and "class_path" in description and classes:
        found = find_class(description["class_path"], tuple(classes.values()), where)
        given = _read_arguments(description, where)
        if any(inspect.isclass(kind) and issubclass(found, kind) for kind in classes):
            return build_class(found, given, where)
        return partial(found, **_build_arguments(found, given, where))
    for kind in kinds:
        if isinstance(description, Mapping) and inspect.isclass(kind) and is_dataclass(kind):
            return build_class(kind, description, where)
        if isinstance(description, Sequence) and not isinstance(description, str):
            origin, inner = get_origin(kind), (get_args(kind) or (Any,))
            if origin in (list, tuple, Sequence):
                hints = inner if origin is tuple and Ellipsis not in inner else (inner[0],) * len(description)
                if len(hints) != len(description):
                    raise ValueError(
                        f"{where} is {description!r:.100}; expected {len(hints)} values, as `synth2 fit` or "
                        "`synth2 export` wrote them. Take the file as it was written."
                    )
                built = [build_component(*pair, where) for pair in zip(description, hints, strict=True)]
                return built if origin is list else tuple(built)
    if description is not None and classes and len(classes) == sum(kind is not NoneType for kind in kinds):
        raise ValueError(f"{where} is {description!r}; expected a mapping with 'class_path' and 'init_args'.")
    return description


def build_class(class_: type, given: Mapping[str, Any], where: str) -> Any:
    """Build an object of a class, and its arguments by :func:`build_component`.

    Args:
        class_: The class.
        given: Arguments by name, either descriptions or objects.
        where: Position in the description, for messages.

    Raises:
        ValueError: If the class takes other arguments, or one of them cannot be built.

    Example:
        >>> from synth2_lightning.types import GenerationSettings
        >>> build_class(GenerationSettings, {"num_beams": 3}, "generation").num_beams
        3
    """
    arguments = _build_arguments(class_, given, where)
    try:
        inspect.signature(class_).bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"{where} cannot be built: {class_.__name__} takes other arguments ({error}). Expected a description for "
            "the installed version of its package: install the version that it lists under 'versions'."
        ) from error
    try:
        return class_(**arguments)
    # Wrong types of values, or sizes beyond the memory (a RuntimeError in torch).
    except (TypeError, AttributeError, LookupError, ArithmeticError, MemoryError, RuntimeError) as error:
        raise ValueError(
            f"{where} cannot be built: {class_.__name__} rejects its arguments ({type(error).__name__}: {error}). "
            "Expected a description written by `synth2 fit` or `synth2 export`."
        ) from error


def copy_plain(description: object, what: str) -> Any:
    """Copy a description to plain values: dictionaries, lists, strings, numbers, booleans and ``None``.

    Args:
        description: Nested values, as ``torch.load(weights_only=True)`` or a parser of JSON returned them.
        what: Name of the described object, for messages.

    Raises:
        ValueError: If it contains anything else, nests deeper than 100 levels, or has more than 100,000 values: YAML
            aliases can multiply a few lines beyond the memory.

    Example:
        >>> copy_plain({"folder": "runs", "sizes": (1, 2)}, "example")
        {'folder': 'runs', 'sizes': [1, 2]}
    """
    count = 0

    def copy(value: object, depth: int) -> object:
        nonlocal count
        count += 1
        if count > _MAX_VALUES or depth > _MAX_DEPTH:
            raise ValueError(
                f"{what} has more than {_MAX_VALUES:,} values, or nests deeper than {_MAX_DEPTH} levels; expected the "
                "few hundred settings of a model. It was not read."
            )
        match value:
            case None | str() | int() | float():
                return value
            case list() | tuple() | set():
                return [copy(each, depth + 1) for each in value]
            case Mapping():
                return {str(key): copy(each, depth + 1) for key, each in value.items()}
        # Not read by their attributes: weights_only=True also loads classes of torch, such as DeviceMesh.
        raise ValueError(f"{what} contains a {type(value).__name__}; expected plain values only.")

    return copy(description, 0)


def _class_of(kind: Any) -> type | None:
    """Return the class of a type hint, or the class that a factory returns; ``None`` for plain values."""
    if get_origin(kind) is Callable:
        kind = get_args(kind)[1]
    return kind if inspect.isclass(kind) and kind not in _PLAIN and not is_dataclass(kind) else None


def _read_arguments(description: Mapping[str, Any], where: str) -> dict[str, Any]:
    given = [description.get(name) or {} for name in ("init_args", "dict_kwargs")]
    if wrong := [each for each in given if not isinstance(each, Mapping)]:
        raise ValueError(f"{where} has the arguments {wrong[0]!r}; expected a mapping of names to values.")
    return {name: value for each in given for name, value in each.items()}


def _build_arguments(class_: type, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for base in reversed(class_.__mro__):  # subclasses may pass arguments to their base class by **kwargs
        if "__init__" in vars(base):
            with suppress(NameError, TypeError):  # hints that exist only for type checkers: the arguments stay plain
                hints |= get_type_hints(vars(base)["__init__"])
    return {name: build_component(value, hints.get(name, Any), f"{where}.{name}") for name, value in given.items()}
