"""Which packages a file may name classes of."""

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pkgutil import resolve_name
from typing import Any

from jsonargparse import Namespace

from synth2_lightning.io.locations import PACKAGE_SCHEME

OWN_PACKAGE = "synth2_lightning"
TRUSTED_PACKAGES = (OWN_PACKAGE, "torch", "lightning", "transformers")
"""Packages whose classes a file from elsewhere may name, where their type fits."""
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
    foreign = {name: package for name, package in list_names(description) if package not in trusted_packages()}
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
    return {package for _, package in list_names(description)}


def list_names(description: Any) -> Iterator[tuple[str, str]]:
    """Yield every name of a class or file in a description with its package."""
    if isinstance(description, Mapping):
        for key, value in description.items():
            if key == "class_path":
                yield str(value), str(value).partition(".")[0]
            else:
                yield from list_names(value)
    elif isinstance(description, str):
        if description.startswith(PACKAGE_SCHEME):
            yield description, description.removeprefix(PACKAGE_SCHEME).partition("/")[0].partition(".")[0]
    elif isinstance(description, Sequence):
        for value in description:
            yield from list_names(value)
