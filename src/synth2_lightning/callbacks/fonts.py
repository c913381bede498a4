"""The font of texts in images."""

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

_DEJAVU = "DejaVuSans.ttf"


def load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return DejaVu Sans of the system or of matplotlib; without either, Pillow's font, which has ASCII only.

    Example:
        >>> load_font(14).getlength("a red circle") > 50
        True
    """
    matplotlib = find_spec("matplotlib")  # not imported, which takes a second
    folders = (matplotlib.submodule_search_locations if matplotlib else None) or ()
    paths: list[str | Path] = [_DEJAVU, *(Path(folder, "mpl-data", "fonts", "ttf", _DEJAVU) for folder in folders)]
    for path in paths:
        with suppress(OSError):
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)
