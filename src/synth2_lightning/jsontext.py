"""Text and JSON from anywhere: one rule for encodings, byte order marks and what is no character."""

import codecs
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synth2_lightning.files import require_file

REPLACEMENT = "\ufffd"
"""U+FFFD, which stands where a text had half a character: readers count and name the texts that have one."""

_MARKS = {  # in this order: the mark of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONE_ESCAPE = re.compile(  # half of a pair of escapes; a whole pair is one character
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)


def find_encoding(start: bytes) -> str:
    """Return the encoding of a text: UTF-16 or UTF-32 if it begins with their mark, or else UTF-8, its mark dropped.

    Args:
        start: The first four bytes or more.

    Example:
        >>> find_encoding("a dog".encode("utf-16")), find_encoding(b"a dog")
        ('utf-16', 'utf-8-sig')
    """
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8-sig")


def decode_text(content: bytes) -> str:
    """Return the text that bytes hold, without its byte order mark.

    Raises:
        ValueError: If they are not in UTF-8, nor in what their mark says.

    Example:
        >>> decode_text("\ufeffa dog".encode())
        'a dog'
    """
    return content.decode(find_encoding(content))


def has_surrogates(text: str) -> bool:
    r"""Return whether a text holds halves of characters, which no encoding can write.

    JSON's escapes may make them, and the names of files that are not in UTF-8.

    Example:
        >>> has_surrogates("a dog \ud83d"), has_surrogates("a dog \U0001f415")
        (True, False)
    """
    return not text.isascii() and _SURROGATE.search(text) is not None


def parse_json(text: str | bytes) -> Any:
    r"""Parse JSON; an escape of half a character becomes U+FFFD, as Unicode recommends.

    Args:
        text: The whole text; bytes in UTF-8, or in UTF-16 or UTF-32 with their mark.

    Raises:
        ValueError: If it is no JSON, or nests so deep that Python's parser would run out of stack.

    Example:
        >>> ascii(parse_json(r'"a dog \ud83d"'))
        "'a dog \\ufffd'"
        >>> parse_json("[" * 100_000)
        Traceback (most recent call last):
        ValueError: it nests too deep
    """
    if isinstance(text, bytes):
        text = decode_text(text)
    text = text.removeprefix("\ufeff")
    try:
        value = json.loads(text)
        return _replace_surrogates(value) if _LONE_ESCAPE.search(text) or has_surrogates(text) else value
    except RecursionError:
        raise ValueError("it nests too deep") from None


def _replace_surrogates(value: Any) -> Any:
    match value:
        case str():
            return _SURROGATE.sub(REPLACEMENT, value)
        case list():
            return [_replace_surrogates(member) for member in value]
        case dict():
            return {_replace_surrogates(name): _replace_surrogates(member) for name, member in value.items()}
    return value


def read_description(path: Path, fields: Mapping[str, type], expected: str) -> dict[str, Any]:
    """Read a JSON object that describes a part of ours.

    Args:
        path: The file.
        fields: What it must hold, and of which types.
        expected: What writes such files, for the message.

    Raises:
        OSError: If it is a folder, a pipe or a device.
        ValueError: If it is no JSON, or lacks a field.
    """
    require_file(path)
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON ({error}); expected {expected}. Copy it again.") from error
    found: dict[str, Any] = content if isinstance(content, dict) else {}
    if wrong := [name for name, kind in fields.items() if not isinstance(found.get(name), kind)]:
        raise ValueError(f"{path} has no {wrong[0]!r}, or one that cannot be; expected {expected}. Copy it again.")
    return found
