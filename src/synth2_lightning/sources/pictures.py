"""Decode a picture, whatever its file holds, or say by name why it cannot be decoded."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from stat import S_ISREG

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP")
"""What is decoded, as Pillow calls it: formats of photographs. Others may start programs, as EPS does Ghostscript."""
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_SIXTEEN_BITS_WHITE = 65535


def decode_picture(
    file: Path | BytesIO, name: str, max_pixels: int | None = None, wanted_size: int | None = None
) -> Image.Image:
    """Decode a picture as its camera meant it: turned upright by its EXIF tag, in RGB.

    Of an animation, the first picture. What is transparent becomes white: pictures with an alpha channel are mostly
    drawings and cut-outs made for white pages, and black lines on black would be nothing. Greys of more than 8 bits are
    scaled, not clipped.

    Args:
        file: A path, or the bytes of a picture.
        name: What to call the picture in an error.
        max_pixels: Refuse larger ones before they are decoded; ``None`` leaves that to Pillow, which refuses those of
            more than twice ``PIL.Image.MAX_IMAGE_PIXELS`` in any case (:func:`pixel_limit` moves that).
        wanted_size: The side in pixels of what will be made of it. A JPEG of more than twice that is decoded at a half,
            a quarter or an eighth of its size, which takes as much less time; ``None`` decodes all of it.

    Raises:
        OSError: If it is missing, truncated, no picture, or so large that it looks like an attack.

    Example:
        >>> from io import BytesIO
        >>> file = BytesIO()
        >>> Image.new("L", (4, 3)).save(file, "PNG")
        >>> decode_picture(file, "grey.png").mode
        'RGB'
    """
    try:
        if isinstance(file, Path) and not file.is_dir() and not S_ISREG(file.stat().st_mode):
            raise ValueError("it is no regular file")  # a pipe would be waited for, for ever
        with Image.open(file, formats=_known_formats()) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise ValueError(
                    f"it has {image.width} x {image.height} pixels, and more than {max_pixels} are refused, because a "
                    "small file may then fill the memory; allow more by max_pixels if you trust it"
                )
            if wanted_size is not None:
                image.draft(None, (2 * wanted_size, 2 * wanted_size))
            return to_rgb(image)
    except UnidentifiedImageError as error:
        what = (
            "it is empty (0 bytes)"
            if _is_empty(file)
            else f"it is in none of the formats that are read ({', '.join(_known_formats())})"
        )
        raise OSError(f"The picture {name} cannot be read: {type(error).__name__}: {what}") from error
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
    image = ImageOps.exif_transpose(image)
    if image.mode in _SIXTEEN_BITS or image.mode in ("I", "F"):
        return _scale_deep_grey(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layers = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")


def _scale_deep_grey(image: Image.Image) -> Image.Image:
    # 16 bits say where white is. Whole numbers beyond them and fractions do not: there the extremes are
    # black and white.
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    if image.mode != "F" and low >= 0 and high <= _SIXTEEN_BITS_WHITE:
        low, high = 0.0, float(_SIXTEEN_BITS_WHITE)
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scaled = (values - low) * (255 / (high - low) if high > low else 0)
    return Image.fromarray(scaled.round().astype(np.uint8))


@cache
def _known_formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that this Pillow was built with; what cameras call MPO is JPEG to it."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _is_empty(file: Path | BytesIO) -> bool:
    return not (file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes)
