"""YAML from anywhere: what is no YAML, nests absurdly, or multiplies by its aliases, is one kind of error."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

MAX_LETTERS = 2**22
"""Longest text that is parsed; run files have some thousand letters."""
MAX_DEPTH = 100
MAX_COPIES = 10_000
"""Entries that aliases may add to those that are written; a text counts as one per hundred letters."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(text: str) -> Any:
    """Parse YAML.

    Args:
        text: The whole text.

    Raises:
        ValueError: If it is no YAML, or :func:`check_yaml` refuses it.

    Example:
        >>> parse_yaml("beams: [1, 3]")
        {'beams': [1, 3]}
    """
    try:
        check_yaml(text)
        return yaml.load(text, Loader=_LOADER)  # a safe loader: plain values, no classes
    except yaml.YAMLError as error:
        raise ValueError(f"it is no YAML: {' '.join(str(error).split())}") from error


def check_yaml(text: str) -> None:
    """Refuse YAML that a few letters make into more than memory or patience hold, in time in proportion to its length.

    Aliases (``*a``) cost nothing by themselves, but whoever walks through the values walks through every copy.

    Args:
        text: The whole text.

    Raises:
        ValueError: If it is too long, nests too deep, stands for too much, or holds itself.
        yaml.YAMLError: If it is no YAML.

    Example:
        >>> check_yaml("a: &a [*a]")
        Traceback (most recent call last):
        ValueError: its alias *a stands for what it is part of
    """
    if len(text) > MAX_LETTERS:
        raise ValueError(f"it has {len(text)} letters, and more than {MAX_LETTERS} are refused")
    sizes: dict[str, int | None] = {}
    """Entries behind each anchor; ``None`` until it ends."""
    open_nodes: list[tuple[str | None, int]] = []
    num_copies = 0
    for event in _read_events(text):
        match event:
            case yaml.AliasEvent():
                if (size := sizes.get(event.anchor, 0)) is None:
                    raise ValueError(f"its alias *{event.anchor} stands for what it is part of")
                num_copies += size
            case yaml.ScalarEvent():
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
            raise ValueError(f"its aliases stand for more than {MAX_COPIES} further entries")
        if open_nodes:
            anchor, so_far = open_nodes[-1]
            open_nodes[-1] = (anchor, so_far + size)


@cache
def check_run_files() -> None:
    """Have jsonargparse check all YAML that it reads: run files, and the files that these name.

    Example:
        >>> from jsonargparse import get_loader
        >>> check_run_files()
        >>> get_loader("yaml")("a: " + "[" * 200)
        Traceback (most recent call last):
        yaml.error.YAMLError: it nests more than 100 deep
    """
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
