"""Class specs: descriptions of components by ``class_path`` and ``init_args``, built without running foreign code.

Checkpoints, run folders and exports that come from somebody else hold such specs. The command line's parser is no help
there: to it any text may be the name of something to import, another file, or YAML. Here a text is a text, and a class
is what a mapping names by ``class_path``: of a trusted package, and a subclass of the type of its place. Under ``Any``
a class spec is data.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import is_dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from jsonargparse import Namespace
from torch import Tensor

from synth2_lightning.locations import PACKAGE_SCHEME

OWN_PACKAGE = "synth2_lightning"
TRUSTED_PACKAGES = (OWN_PACKAGE, "torch", "lightning", "transformers")
"""Packages whose classes a file from elsewhere may name, where their type fits."""

_MAX_VALUES, _MAX_DEPTH = 100_000, 100
_PLAIN = (str, int, float, bool, dict, list, tuple, set, object, Any)  # typing.Any is a class, too
_trusted: ContextVar[frozenset[str]] = ContextVar("_trusted", default=frozenset(TRUSTED_PACKAGES))


@contextmanager
def trusting(packages: Collection[str]) -> Iterator[None]:
    """Trust more packages while the context lasts: classes that they define may be built.

    Args:
        packages: Names of top-level packages, such as ``["my_heads"]``.

    Raises:
        ValueError: If a name is not one of a top-level package.

    Example:
        >>> with trusting(["my_heads"]):
        ...     "my_heads" in trusted_packages()
        True
    """
    if wrong := [name for name in packages if not name.isidentifier()]:
        raise ValueError(
            f"The trusted package {wrong[0]!r} is not the name of a top-level package; expected one such as 'my_heads'."
        )
    token = _trusted.set(trusted_packages() | set(packages))
    try:
        yield
    finally:
        _trusted.reset(token)


def trusted_packages() -> frozenset[str]:
    """Names of the top-level packages that are trusted now.

    Example:
        >>> sorted(trusted_packages())
        ['lightning', 'synth2_lightning', 'torch', 'transformers']
    """
    return _trusted.get()


def refuse_foreign_packages(description: Any) -> None:
    """Refuse a description that names classes or files of packages that are not trusted, before any is imported.

    Args:
        description: Plain values, nested; a ``class_path`` names a class, ``package://`` a file of a package.

    Raises:
        ValueError: If it names others, with what it names of them.

    Example:
        >>> refuse_foreign_packages({"class_path": "synth2_lightning.testing.TinyDecoder"})
    """
    foreign = {name: package for name, package in _list_names(description) if package not in trusted_packages()}
    if foreign:
        wanted = sorted(set(foreign.values()))
        raise ValueError(
            f"The description names {', '.join(map(repr, sorted(foreign)))}; to build that would run code of "
            f"{', '.join(map(repr, wanted))}. Expected classes of {', '.join(map(repr, sorted(trusted_packages())))} "
            f"only. If you know that code and trust it, allow it: --trust {' --trust '.join(wanted)} on the command "
            f"line, trust={wanted} in Python. Nothing was imported."
        )


def refuse_functions(settings: Any, typed: Collection[str] = (), where: str = "run file") -> None:
    """Refuse parsed settings of a run that name functions where classes are expected, before one is called.

    The parser takes a function for a class wherever its result may fit: ``torch.load`` for an optimizer. Functions of
    packages that the user trusts by name are allowed.

    Args:
        settings: As the parser gives them, nested; class specs are its namespaces.
        typed: Import paths that the user typed: those functions are allowed.
        where: Name of the place, for messages.

    Raises:
        ValueError: If a function is named.

    Example:
        >>> refuse_functions(Namespace(optimizer=Namespace(class_path="torch.load")))
        Traceback (most recent call last):
        ValueError: run file.optimizer names 'torch.load', which is a function; expected a class...
    """
    if isinstance(settings, Namespace | Mapping):
        values = vars(settings) if isinstance(settings, Namespace) else settings
        for name, value in values.items():
            refuse_functions(value, typed, f"{where}.{name}")
        if not isinstance(settings, Namespace) or not isinstance(path := values.get("class_path"), str):
            return
        try:
            named = resolve_name(path)
        except (ImportError, AttributeError, ValueError):  # told when it is built
            return
    elif isinstance(settings, list | tuple | set):
        for value in settings:
            refuse_functions(value, typed, where)
        return
    elif inspect.isroutine(settings):
        named, path = settings, f"{settings.__module__}.{settings.__qualname__}"
    else:
        return
    by_user = trusted_packages() - {*TRUSTED_PACKAGES}
    if not inspect.isclass(named) and path.partition(".")[0] not in by_user and path not in typed:
        raise ValueError(
            f"{where} names {path!r}, which is a function; expected a class. To call functions that a file names would "
            "run what the file wants. Nothing was called. If it is one of your own package, allow it: --trust PACKAGE."
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
        >>> build_part(description, ResamplerFactory)(6, 8).num_queries
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
                if len(hints) != len(description):
                    raise ValueError(
                        f"{where} is {description!r:.100}; expected {len(hints)} values, as `synth2 fit` or "
                        "`synth2 export` wrote them. Take the file as it was written."
                    )
                built = [build_part(*pair, where) for pair in zip(description, hints, strict=True)]
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


def _list_names(description: Any) -> Iterator[tuple[str, str]]:
    """Yield every name of a class or file in a description with its package."""
    if isinstance(description, Mapping):
        for key, value in description.items():
            if key == "class_path":
                yield str(value), str(value).partition(".")[0]
            else:
                yield from _list_names(value)
    elif isinstance(description, str):
        if description.startswith(PACKAGE_SCHEME):
            yield description, description.removeprefix(PACKAGE_SCHEME).partition("/")[0].partition(".")[0]
    elif isinstance(description, Sequence):
        for value in description:
            yield from _list_names(value)


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
