"""Decoding of text and JSON: encodings, byte order marks and unpaired surrogates."""

import codecs
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synth2_lightning.io.paths import require_file

REPLACEMENT = "\ufffd"
"""U+FFFD, which replaces an unpaired surrogate; readers count and report the texts with one."""

_MARKS = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")  # of a surrogate, which may be unpaired


def find_encoding(start: bytes) -> str:
    """Return the encoding of a text by its byte order mark in the first four bytes: UTF-16, UTF-32 or else UTF-8.

    Example:
        >>> find_encoding("a dog".encode("utf-16")), find_encoding(b"a dog")
        ('utf-16', 'utf-8-sig')
    """
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8-sig")


def decode_text(content: bytes) -> str:
    """Decode bytes by their byte order mark, which is removed.

    Raises:
        ValueError: If they are neither UTF-8 nor in the encoding of their mark.
    """
    return content.decode(find_encoding(content))


def has_surrogates(text: str) -> bool:
    """Return whether a text contains surrogates, which no encoding can write.

    They result from JSON escapes, and from file names that are not UTF-8.
    """
    return not text.isascii() and _SURROGATE.search(text) is not None


def parse_json(text: str | bytes) -> Any:
    r"""Parse JSON; unpaired surrogates become U+FFFD, as Unicode recommends.

    Args:
        text: The document; bytes in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Raises:
        ValueError: If it is not JSON, or nests too deep for Python's parser.

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
        return _replace_surrogates(value) if _ESCAPE.search(text) or has_surrogates(text) else value
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
    """Read a JSON object with required fields.

    Args:
        path: The file.
        fields: Names and types of the required fields.
        expected: Description of a valid file, for the message.

    Raises:
        OSError: If it is a folder, a pipe or a device.
        ValueError: If it is not JSON, or lacks a field.
    """
    require_file(path)
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); expected {expected}. Copy it again.") from error
    found: dict[str, Any] = content if isinstance(content, dict) else {}
    if wrong := [name for name, kind in fields.items() if not isinstance(found.get(name), kind)]:
        raise ValueError(f"{path} has no valid {wrong[0]!r}; expected {expected}. Copy it again.")
    return found
