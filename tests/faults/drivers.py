"""What the tables of bad input share: files to write, functions that read them, and the message of a refusal."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from synth2_lightning.cli.errors import message_for_user
from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.sources.caption_table import CaptionTable
from synth2_lightning.sources.images import decode_image

DEEP = "[" * 100_000
VOCABULARY = "package://synth2_lightning/scenes/vocabulary"
TINY_MODEL: dict[str, Any] = {
    "image_encoder": {"class_path": "synth2_lightning.testing.TinyImageTokenizer"},
    "resampler": {"class_path": "synth2_lightning.testing.TinyResampler"},
    "decoder": {"class_path": "synth2_lightning.testing.TinyDecoder"},
}


def read_refusal(read: Callable[[Path], object], folder: Path) -> str:
    """Return the message for users of the error that a driver raises in a folder."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the type depends on the input
        read(folder)
    message = message_for_user(caught.value)
    assert message is not None, f"synth2 would end in a traceback: {caught.value!r}"
    assert len(message) > 60, "the message lacks what was expected or what to do"
    return message


def write(folder: Path, name: str, content: Any) -> str:
    """Write bytes, a text or a JSON value, and return the path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.write_bytes(content)
    return str(path)


def png() -> bytes:
    """Return a red image."""
    file = BytesIO()
    Image.new("RGB", (3, 2), "red").save(file, "PNG")
    return file.getvalue()


def image(folder: Path, content: bytes, max_pixels: int | None = None) -> object:
    """Decode an image file."""
    return decode_image(Path(write(folder, "bad.png", content)), "bad.png", max_pixels)


def load(source: ImageTextSource) -> list[str]:
    """Return all captions of a source."""
    source.load()
    return [caption for index in range(len(source)) for caption in source.captions(index)]


def table(folder: Path, name: str, content: Any, **columns: Any) -> list[str]:
    """Return the captions of a table."""
    captions = CaptionTable(write(folder, name, content), **columns)
    captions.load()
    return [captions.record(index).caption for index in range(len(captions))]
