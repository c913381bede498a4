"""Decode a picture, whatever its file holds, or say by name why it cannot be decoded."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from synth2_lightning.files import refuse_special
from synth2_lightning.sources.picture_metadata import find_turn, strip_metadata

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP")
"""What is decoded, as Pillow calls it: formats of photographs. Others may start programs, as EPS does Ghostscript."""
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_SIXTEEN_BITS_WHITE = 65535
LARGEST_WANTED = 2048
"""The side in pixels of what is made of a picture, at most, where nobody says: no image encoder sees more."""
_LONGEST = 64
"""Times the shorter side that is kept of a longer one."""
_THINNEST = 1000
"""Times the shorter side that the longer one of a file may have at all."""
_LARGE = 2**24
"""Pixels above which a picture is reduced before it is RGB, and decoded while no other large one is."""
_BAND = 2**20
"""Pixels that are converted at a time."""
_one_large_at_a_time = Lock()


def decode_picture(
    file: Path | BytesIO, name: str, max_pixels: int | None = None, wanted_size: int = LARGEST_WANTED
) -> Image.Image:
    """Decode a picture as its camera meant it: turned upright by its EXIF tag, in RGB.

    Of an animation, the first picture. What is transparent becomes white: pictures with an alpha channel are mostly
    drawings and cut-outs made for white pages, and black lines on black would be nothing. Greys of more than 8 bits are
    scaled, not clipped. Metadata that are spoiled are left out; they never make a bad picture.

    The result costs memory by what is wanted, whatever the file: of a side that is more than 64 times the other one,
    the middle is kept, and more than 16 million pixels are reduced on their way to RGB, never below four times the
    wanted size. What decoding itself costs is at most 4 bytes a pixel in most formats, of one large picture at a time.

    Args:
        file: A path, or the bytes of a picture.
        name: What to call the picture in an error.
        max_pixels: Refuse larger ones before they are decoded; ``None`` leaves that to Pillow, which refuses those of
            more than twice ``PIL.Image.MAX_IMAGE_PIXELS`` in any case (:func:`pixel_limit` moves that).
        wanted_size: The side in pixels of what will be made of it. A JPEG of more than twice that is decoded at a half,
            a quarter or an eighth of its size, which takes as much less time.

    Raises:
        OSError: If it is missing, truncated, no picture, so large that it looks like an attack, or more than memory
            holds.

    Example:
        >>> from io import BytesIO
        >>> file = BytesIO()
        >>> Image.new("L", (4, 3)).save(file, "PNG")
        >>> decode_picture(file, "grey.png").mode
        'RGB'
    """
    try:
        if isinstance(file, Path) and not file.is_dir():
            refuse_special(file)
        return _decode(file, max_pixels, wanted_size)
    except UnidentifiedImageError as error:
        what = (
            "it is empty (0 bytes)"
            if _is_empty(file)
            else f"it is in none of the formats that are read ({', '.join(_known_formats())})"
        )
        raise OSError(f"The picture {name} cannot be read: {type(error).__name__}: {what}") from error
    except MemoryError as error:
        raise OSError(f"The picture {name} cannot be read: it is more than the memory holds") from error
    # Pillow reports damage by whatever its decoders stumble over: a broken PNG header, for one, is a SyntaxError.
    except Exception as error:
        raise OSError(f"The picture {name} cannot be read: {type(error).__name__}: {error}") from error


@contextmanager
def pixel_limit(max_pixels: int) -> Iterator[None]:
    """Let Pillow open pictures of so many pixels while the context lasts, in all threads, without a word.

    Args:
        max_pixels: Pillow alone refuses twice as many; :func:`decode_picture` holds to the number.

    Raises:
        ValueError: If no pixel is allowed.

    Example:
        >>> with pixel_limit(1_000_000_000):
        ...     Image.MAX_IMAGE_PIXELS
        1000000000
    """
    if max_pixels < 1:
        raise ValueError(f"max_pixels is {max_pixels}; expected 1 or more.")
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn a picture upright by its EXIF tag, in RGB, as :func:`decode_picture` says.

    Raises:
        OSError: If it was opened from a file that turns out to be damaged.

    Example:
        >>> to_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    image.load()
    turn = find_turn(image)
    converted = _convert(keep_middle(image), factor=1)
    return converted if turn is None else converted.transpose(turn)


def keep_middle(image: Image.Image) -> Image.Image:
    """Cut the ends of a picture off that is absurdly long: of the longer side, 64 times the shorter one is kept.

    No more than the middle square is ever made of a picture. Resized first, one of 1 x 1,000,000 pixels would fill the
    memory.

    Example:
        >>> keep_middle(Image.new("L", (2, 1000))).size
        (2, 128)
    """
    margins = [max(0, side - _LONGEST * min(image.size)) // 2 for side in image.size]  # the middle stays the middle
    if not any(margins):
        return image
    return image.crop((margins[0], margins[1], image.width - margins[0], image.height - margins[1]))


def _decode(file: Path | BytesIO, max_pixels: int | None, wanted_size: int) -> Image.Image:
    """Decode a file; if that fails, and not for want of memory, once more without the file's metadata."""
    try:
        return _decode_as_it_is(file, max_pixels, wanted_size)
    except MemoryError:
        raise
    except Exception:
        plain = strip_metadata(file)
        if plain is not None:
            with suppress(Exception):  # the damage is elsewhere, and the first error names it
                return _decode_as_it_is(plain, max_pixels, wanted_size)
        raise


def _decode_as_it_is(file: Path | BytesIO, max_pixels: int | None, wanted_size: int) -> Image.Image:
    if isinstance(file, BytesIO):
        file.seek(0)
    with Image.open(file, formats=_known_formats()) as image:
        _check_size(image.size, max_pixels)
        image.draft(None, (2 * wanted_size, 2 * wanted_size))
        is_large = image.width * image.height > _LARGE
        with _one_large_at_a_time if is_large else nullcontext():
            image.load()
            turn, middle = find_turn(image), keep_middle(image)
            factor = min(middle.size) // (4 * wanted_size) if is_large else 1
            converted = _convert(middle, max(factor, 1))
    return converted if turn is None else converted.transpose(turn)


def _check_size(size: tuple[int, int], max_pixels: int | None) -> None:
    width, height = size
    if max_pixels is not None and width * height > max_pixels:
        raise ValueError(
            f"it has {width} x {height} pixels, and more than {max_pixels} are refused, because a small file may then "
            "fill the memory; allow more by max_pixels if you trust it"
        )
    if max(size) > _THINNEST * min(size):
        raise ValueError(
            f"it has {width} x {height} pixels, and one side of more than {_THINNEST} times the other one is refused: "
            "its middle square, which is what an encoder sees, is next to nothing of it; cut out what matters"
        )


def _convert(image: Image.Image, factor: int) -> Image.Image:
    """Convert a picture to RGB, smaller by a factor, band by band: its other forms never exist as a whole."""
    scale = _find_scale(image)
    width, height = image.size
    num_rows = max(_BAND // width // factor, 1) * factor
    converted = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, num_rows):
        band = _convert_band(image.crop((0, top, width, min(top + num_rows, height))), scale)
        converted.paste(band if factor == 1 else band.reduce(factor), (0, top // factor))
    return converted


def _convert_band(band: Image.Image, scale: tuple[float, float] | None) -> Image.Image:
    if scale is not None:
        low, high = scale
        scaled = (_read_values(band) - low) * (255 / (high - low) if high > low else 0)
        return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")
    if not band.has_transparency_data:
        return band.convert("RGB")
    layers = band.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")


def _find_scale(image: Image.Image) -> tuple[float, float] | None:
    """The values of black and white, of greys of more than 8 bits."""
    if image.mode in _SIXTEEN_BITS:
        return 0.0, float(_SIXTEEN_BITS_WHITE)
    if image.mode not in ("I", "F"):
        return None
    # 16 bits say where white is. Whole numbers beyond them and fractions do not: there the extremes are
    # black and white.
    rows = max(_BAND // image.width, 1)
    bands = (image.crop((0, top, image.width, min(top + rows, image.height))) for top in range(0, image.height, rows))
    extremes = [(float(values.min()), float(values.max())) for values in map(_read_values, bands)]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    if image.mode == "I" and low >= 0 and high <= _SIXTEEN_BITS_WHITE:
        return 0.0, float(_SIXTEEN_BITS_WHITE)
    if image.mode == "F" and low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high


def _read_values(image: Image.Image) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0, neginf=0)


@cache
def _known_formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that this Pillow was built with; what cameras call MPO is JPEG to it."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _is_empty(file: Path | BytesIO) -> bool:
    return not (file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes)
