"""Texts and lists of names, shortened for messages."""

from collections.abc import Iterable
from itertools import islice

_MAX_CHARACTERS = 300
_NUM_NAMED = 3


def one_line(text: object) -> str:
    r"""Return a text, or the message of an error, on one line of at most 300 characters and an ellipsis.

    A full stop at the end is left out, because the sentence around it has one.

    Example:
        >>> one_line(ValueError("no such\n  model."))
        'no such model'
    """
    line = " ".join(str(text).split()).removesuffix(".")
    return line if len(line) <= _MAX_CHARACTERS else f"{line[:_MAX_CHARACTERS]}…"


def name_first(names: Iterable[str]) -> str:
    """Return the first three names, and whether there are others; an empty text without names.

    Example:
        >>> name_first(["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
        'a.jpg, b.jpg, c.jpg, and others'
    """
    first = list(islice(names, _NUM_NAMED + 1))
    return ", ".join(first[:_NUM_NAMED]) + ", and others" * (len(first) > _NUM_NAMED)
