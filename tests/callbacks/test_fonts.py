from collections.abc import Callable
from typing import Any

import pytest
from PIL import ImageFont

from synth2_lightning.callbacks import fonts


def draw(text: str) -> bytes:
    return bytes(fonts.load_font(14).getmask(text))


def hide(name: str) -> Callable[..., Any]:
    truetype = ImageFont.truetype

    def load(font: Any = None, *args: Any, **kwargs: Any) -> ImageFont.FreeTypeFont:
        if str(font) == name:
            raise OSError(f"cannot open {name}")
        return truetype(font, *args, **kwargs)

    return load


@pytest.mark.parametrize("letter", "éüßñÅłžπд")
def test_letters_of_europe_are_no_boxes(letter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not all machines have system fonts, so the tests use matplotlib's.
    monkeypatch.setattr(ImageFont, "truetype", hide("DejaVuSans.ttf"))
    assert draw(letter) != draw("\uffff")  # a box: no font has this character


def test_without_dejavu_there_is_a_font_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_DEJAVU", "missing.ttf")
    assert draw("a") != draw("\uffff") == draw("é")
