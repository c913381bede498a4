"""Parsing of untrusted YAML, with limits for length, depth and aliases."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

MAX_CHARACTERS = 2**22
"""Maximum length; run files have some thousand characters."""
MAX_DEPTH = 100
MAX_COPIES = 10_000
"""Maximum number of entries that aliases add; a string counts as one per hundred characters."""

_MAX_NUMBER = 1000
"""Maximum characters of a plain number in base 60, such as 1:30, which takes time of the square of its length."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(text: str) -> Any:
    """Parse YAML.

    Raises:
        ValueError: If it is not YAML, or exceeds a limit of :func:`check_yaml`.
    """
    try:
        check_yaml(text)
        return yaml.load(text, Loader=_LOADER)  # a safe loader: plain values, no classes
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {' '.join(str(error).split())}") from error


def check_yaml(text: str) -> None:
    """Raise on YAML that expands beyond a limit, in time proportional to its length.

    Aliases (``*a``) share memory, but every traversal of the values visits each copy.

    Raises:
        ValueError: If it is too long, nests too deep, expands too much, contains itself, or has a number of a thousand
            digits.
        yaml.YAMLError: If it is not YAML.

    Example:
        >>> check_yaml("a: &a [*a]")
        Traceback (most recent call last):
        ValueError: its alias *a refers to a value that contains it
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has {len(text)} characters; expected at most {MAX_CHARACTERS}")
    sizes: dict[str, int | None] = {}
    """Number of entries of each anchor; ``None`` until it ends."""
    open_nodes: list[tuple[str | None, int]] = []
    num_copies = 0
    for event in _read_events(text):
        match event:
            case yaml.AliasEvent():
                if (size := sizes.get(event.anchor, 0)) is None:
                    raise ValueError(f"its alias *{event.anchor} refers to a value that contains it")
                num_copies += size
            case yaml.ScalarEvent():
                if len(event.value) > _MAX_NUMBER and event.implicit[0] and not event.value.strip("+-0123456789_.:"):
                    raise ValueError(
                        f"it has a number of {len(event.value)} characters; expected at most {_MAX_NUMBER}"
                    )
                size = 1 + len(event.value) // 100
                if event.anchor is not None:
                    sizes[event.anchor] = size
            case yaml.CollectionStartEvent():
                if len(open_nodes) == MAX_DEPTH:
                    raise ValueError(f"it nests more than {MAX_DEPTH} deep")
                if event.anchor is not None:
                    sizes[event.anchor] = None
                open_nodes.append((event.anchor, 1))
                continue
            case yaml.CollectionEndEvent():
                anchor, size = open_nodes.pop()
                if anchor is not None:
                    sizes[anchor] = size
            case _:
                continue
        if num_copies > MAX_COPIES:
            raise ValueError(f"its aliases add more than {MAX_COPIES} entries")
        if open_nodes:
            anchor, so_far = open_nodes[-1]
            open_nodes[-1] = (anchor, so_far + size)


@cache
def check_run_files() -> None:
    """Make jsonargparse check all YAML that it reads: run files, and files that they refer to."""
    from jsonargparse import get_loader, set_loader

    load = get_loader("yaml")

    def load_checked(text: str) -> Any:
        try:
            check_yaml(text)
        except ValueError as error:
            raise yaml.YAMLError(str(error)) from error
        return load(text)

    set_loader("yaml", load_checked, exceptions=(yaml.YAMLError,))


def _read_events(text: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except RecursionError:
        raise ValueError("it nests too deep") from None
