"""Decoding of image files to RGB, and resizing with a center crop."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from synth2_lightning.io.paths import check_not_special
from synth2_lightning.sources.image_metadata import find_transpose, strip_metadata

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP")
"""Pillow names of the formats that are decoded. Decoders of others may start programs: EPS starts Ghostscript."""
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_WHITE = 65535
_MAX_KEPT_RATIO = 64
"""Aspect ratio above which an image is cropped to this ratio."""
_MAX_RATIO = 1000
"""Aspect ratio above which a file is refused."""
_NUM_LARGE_PIXELS = 2**24
"""Images with more pixels are reduced before the conversion to RGB, and decoded one at a time."""
_MAX_STRIPPED_BYTES = 2**28  # of a file that is read into memory, to decode it without its metadata
_NUM_BAND_PIXELS = 2**20
"""Number of pixels converted at a time."""
_large_image_lock = Lock()


def decode_image(
    file: Path | BytesIO, name: str, max_pixels: int | None = None, wanted_size: int = 2048
) -> Image.Image:
    """Return an image file as an RGB image, with its EXIF orientation applied.

    Of an animation, the first frame is decoded. Transparent pixels become white, because most images with an alpha
    channel are drawings made for white pages. Grayscale values of more than 8 bits are scaled, not clipped. Invalid
    metadata is ignored.

    The memory of the result is bounded: an image with an aspect ratio above 64 is cropped to its middle, and one with
    more than 2**24 pixels is reduced before the conversion to RGB, never below four times ``wanted_size``. Decoding
    needs at most 4 bytes per pixel in most formats; large images are decoded one at a time.

    Args:
        file: Path or content of an image file.
        name: Name of the image in errors.
        max_pixels: Maximum number of pixels, checked before decoding. Pillow refuses more than twice
            ``PIL.Image.MAX_IMAGE_PIXELS`` in any case (:func:`pixel_limit` changes it).
        wanted_size: Side in pixels that the image will be resized to; the default is above the input size of encoders.
            A JPEG of more than twice that size is decoded at 1/2, 1/4 or 1/8 of its size, which is faster.

    Raises:
        OSError: If the file is missing, damaged or no image, or the image exceeds a limit or the memory.

    Example:
        >>> from io import BytesIO
        >>> file = BytesIO()
        >>> Image.new("L", (4, 3)).save(file, "PNG")
        >>> decode_image(file, "gray.png").mode
        'RGB'
    """
    try:
        if isinstance(file, Path) and not file.is_dir():
            check_not_special(file)
        return _decode(file, max_pixels, wanted_size)
    except UnidentifiedImageError as error:
        num_bytes = file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes
        formats = f"it is in none of the expected formats ({', '.join(_known_formats())})"
        what = formats if num_bytes else "it is empty (0 bytes)"
        raise OSError(f"The image {name} cannot be read: {type(error).__name__}: {what}") from error
    except MemoryError as error:
        raise OSError(f"The image {name} cannot be read: it does not fit into memory") from error
    # Pillow's decoders raise errors of many classes: a damaged PNG header is a SyntaxError.
    except Exception as error:
        raise OSError(f"The image {name} cannot be read: {type(error).__name__}: {error}") from error


@contextmanager
def pixel_limit(max_pixels: int) -> Iterator[None]:
    """Context manager that sets Pillow's pixel limit in all threads and silences its warning.

    Args:
        max_pixels: New limit. Pillow itself refuses only images of twice as many pixels; pass the same number to
            :func:`decode_image` to enforce it.

    Raises:
        ValueError: If the limit is below 1.

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
    """Return an opened image in RGB with its EXIF orientation applied, converted as by :func:`decode_image`.

    Raises:
        OSError: If the image was opened from a damaged file.

    Example:
        >>> to_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    image.load()
    transpose = find_transpose(image)
    converted = _convert(keep_middle(image), factor=1)
    return converted if transpose is None else converted.transpose(transpose)


def keep_middle(image: Image.Image) -> Image.Image:
    """Return an image with its longer side cropped to at most 64 times the shorter one.

    Encoders use the central square only, and resizing an uncropped image of 1 x 1,000,000 pixels would exhaust the
    memory.
    """
    margins = [max(0, side - _MAX_KEPT_RATIO * min(image.size)) // 2 for side in image.size]
    if not any(margins):
        return image
    return image.crop((margins[0], margins[1], image.width - margins[0], image.height - margins[1]))


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to a size (bicubic, antialiased) and crop the central square.

    The pixels are those of torchvision's ``Resize`` and ``CenterCrop`` on Pillow images, which CLIP and most models
    of timm were trained with. Training, evaluation and captioning all use this function; the encoder normalizes its
    result. Images with an aspect ratio above 64 are cropped by :func:`keep_middle` first; an image of the requested
    size is returned unchanged.

    Args:
        image: RGB image.
        size: Height and width of the square in pixels.

    Example:
        >>> center_crop(Image.new("RGB", (640, 480)), 224).size
        (224, 224)
    """
    if image.size == (size, size):
        return image
    image = keep_middle(image)
    width, height = image.size
    if width <= height:
        width, height = size, int(size * height / width)
    else:
        width, height = int(size * width / height), size
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


def _decode(file: Path | BytesIO, max_pixels: int | None, wanted_size: int) -> Image.Image:
    """Decode a file; if that fails for another reason than memory, decode it again without its metadata."""
    try:
        return _decode_unmodified(file, max_pixels, wanted_size)
    except MemoryError:
        raise
    except Exception:
        num_bytes = file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes
        stripped = strip_metadata(file) if num_bytes <= _MAX_STRIPPED_BYTES else None
        if stripped is not None:
            with suppress(Exception):  # the first error describes the damage
                return _decode_unmodified(stripped, max_pixels, wanted_size)
        raise


def _decode_unmodified(file: Path | BytesIO, max_pixels: int | None, wanted_size: int) -> Image.Image:
    if isinstance(file, BytesIO):
        file.seek(0)
    with Image.open(file, formats=_known_formats()) as image:
        _check_size(image.size, max_pixels)
        image.draft(None, (2 * wanted_size, 2 * wanted_size))
        is_large = image.width * image.height > _NUM_LARGE_PIXELS
        with _large_image_lock if is_large else nullcontext():
            image.load()
            transpose, middle = find_transpose(image), keep_middle(image)
            factor = min(middle.size) // (4 * wanted_size) if is_large else 1
            converted = _convert(middle, max(factor, 1))
    return converted if transpose is None else converted.transpose(transpose)


def _check_size(size: tuple[int, int], max_pixels: int | None) -> None:
    width, height = size
    if max_pixels is not None and width * height > max_pixels:
        raise ValueError(
            f"it has {width} x {height} pixels, and more than {max_pixels} are refused, because decoding them may "
            "exhaust the memory; raise max_pixels if you trust the file"
        )
    if max(size) > _MAX_RATIO * min(size):
        raise ValueError(
            f"it has {width} x {height} pixels, and a side of more than {_MAX_RATIO} times the other one is refused, "
            "because encoders use the central square only; crop the image to the relevant part"
        )


def _convert(image: Image.Image, factor: int) -> Image.Image:
    """Convert an image to RGB and reduce it by a factor, in bands of rows to limit the memory of intermediates."""
    scale = _find_scale(image)
    width, height = image.size
    num_rows = max(_NUM_BAND_PIXELS // width // factor, 1) * factor
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
    """Return the values of black and white of a grayscale image with more than 8 bits; ``None`` for other modes."""
    if image.mode in _SIXTEEN_BITS:
        return 0.0, float(_WHITE)
    if image.mode not in ("I", "F"):
        return None
    # 32-bit modes define no white: values outside of 16 bits or [0, 1] are scaled by their extremes.
    rows = max(_NUM_BAND_PIXELS // image.width, 1)
    bands = (image.crop((0, top, image.width, min(top + rows, image.height))) for top in range(0, image.height, rows))
    extremes = [(float(values.min()), float(values.max())) for values in map(_read_values, bands)]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    if image.mode == "I" and low >= 0 and high <= _WHITE:
        return 0.0, float(_WHITE)
    if image.mode == "F" and low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high


def _read_values(image: Image.Image) -> NDArray[np.float64]:
    return np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0, neginf=0)


@cache
def _known_formats() -> tuple[str, ...]:
    """Return those of :data:`FORMATS` that Pillow was built with; it opens MPO files of cameras as JPEG."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
