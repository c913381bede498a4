"""Packages whose classes untrusted files may name."""

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
"""Packages whose classes an untrusted file may name, if their type fits."""
_trusted: ContextVar[frozenset[str]] = ContextVar("_trusted", default=frozenset(TRUSTED_PACKAGES))


@contextmanager
def trusting(packages: Collection[str]) -> Iterator[None]:
    """Trust more packages inside the context: their classes may be built.

    Args:
        packages: Names of top-level packages, such as ``["my_heads"]``.

    Raises:
        ValueError: If a name is not that of a top-level package.

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
    """Names of the top-level packages that are trusted in the current context.

    Example:
        >>> sorted(trusted_packages())
        ['lightning', 'synth2_lightning', 'torch', 'transformers']
    """
    return _trusted.get()


def check_packages(description: Any) -> None:
    """Raise if a description names classes or files of packages that are not trusted; nothing is imported.

    Args:
        description: Nested plain values; a ``class_path`` names a class, ``package://`` a file of a package.

    Raises:
        ValueError: If it does; the message lists the names.

    Example:
        >>> check_packages({"class_path": "synth2_lightning.testing.TinyDecoder"})
    """
    foreign = {name: package for name, package in list_names(description) if package not in trusted_packages()}
    if foreign:
        wanted = sorted(set(foreign.values()))
        raise ValueError(
            f"The description names {', '.join(map(repr, sorted(foreign)))}, which would run code of "
            f"{', '.join(map(repr, wanted))}; expected classes of {', '.join(map(repr, sorted(trusted_packages())))} "
            f"only. Nothing was imported. If you trust that code, allow it: --trust {' --trust '.join(wanted)} on the "
            f"command line, trust={wanted} in Python."
        )


def check_no_functions(settings: Any, typed: Collection[str] = (), where: str = "run file") -> None:
    """Raise if parsed settings of a run name functions in place of classes; nothing is called.

    The parser accepts a function in place of a class if its return type may fit, such as ``torch.load`` for an
    optimizer. Functions of packages in ``--trust`` are allowed.

    Args:
        settings: Nested settings from the parser; class specs are namespaces.
        typed: Import paths of functions that the user typed, which are allowed.
        where: Position in the settings, for messages.

    Raises:
        ValueError: If a function is named.

    Example:
        >>> check_no_functions(Namespace(optimizer=Namespace(class_path="torch.load")))
        Traceback (most recent call last):
        ValueError: run file.optimizer names 'torch.load', which is a function; expected a class...
    """
    if isinstance(settings, Namespace | Mapping):
        values = vars(settings) if isinstance(settings, Namespace) else settings
        for name, value in values.items():
            check_no_functions(value, typed, f"{where}.{name}")
        if not isinstance(settings, Namespace) or not isinstance(path := values.get("class_path"), str):
            return
        try:
            named = resolve_name(path)
        except (ImportError, AttributeError, ValueError):  # reported when it is built
            return
    elif isinstance(settings, list | tuple | set):
        for value in settings:
            check_no_functions(value, typed, where)
        return
    elif inspect.isroutine(settings):
        named, path = settings, f"{settings.__module__}.{settings.__qualname__}"
    else:
        return
    by_user = trusted_packages() - {*TRUSTED_PACKAGES}
    if not inspect.isclass(named) and path.partition(".")[0] not in by_user and path not in typed:
        raise ValueError(
            f"{where} names {path!r}, which is a function; expected a class. A file must not choose the functions to "
            "call. Nothing was called. If it is in your own package, allow it: --trust PACKAGE."
        )


def list_packages(description: Any) -> set[str]:
    """Return the packages whose classes or files a description names.

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
