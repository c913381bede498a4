"""Metadata of image files: the orientation is read, and what is spoiled never stands between a file and its pixels."""

import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from zlib import crc32

from PIL import ExifTags, Image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT")
_PNG_SMALLEST_TRANSPARENCY = {0: 2, 2: 6, 3: 1}
"""Bytes of a tRNS chunk, by the type of color; other types have none."""
_JPEG_KEPT = (0xE0, 0xE1, 0xEE)
"""Application segments that stay: JFIF, EXIF, and Adobe's, which names the color space."""
_JFIF_LENGTH = 16
_TIFF_KEPT = frozenset(
    {254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 338, 339}
    | {347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532}
)
"""Tags of TIFF without which pixels cannot be decoded, and the orientation."""


def find_turn(image: Image.Image) -> Image.Transpose | None:
    """How an image must be turned to be upright, by its EXIF or XMP data; ``None`` if it is, or they do not say.

    Args:
        image: Loaded, and its file still open.

    Example:
        >>> image = Image.new("RGB", (2, 1))
        >>> image.getexif()[0x0112] = 6
        >>> find_turn(image).name
        'ROTATE_270'
    """
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # spoiled data end in errors of any kind
        return None


def strip_metadata(file: Path | BytesIO) -> BytesIO | None:
    """Copy an image file without the metadata that a decoder may fail on; ``None`` for formats without any.

    Pillow refuses a PNG for an ICC profile or a text that unpacks to too much, or for the checksum of a chunk that has
    no say in the pixels; a WebP for an EXIF chunk that is cut; a TIFF for a pointer to nowhere. Browsers show them all.

    Args:
        file: A path, or the bytes of an image.

    Example:
        >>> strip_metadata(BytesIO(b"GIF89a")) is None
        True
    """
    content = file.read_bytes() if isinstance(file, Path) else file.getvalue()
    try:
        if content.startswith(_PNG):
            return BytesIO(_PNG + b"".join(_strip_png(content)))
        if content.startswith(_JPEG):
            return BytesIO(_JPEG + b"".join(_strip_jpeg(content)))
        if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            chunks = b"".join(_strip_webp(content))
            return BytesIO(b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks)
        if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return BytesIO(_strip_tiff(content))
    except struct.error:  # it ends where a length was expected
        pass
    return None


def _strip_png(content: bytes) -> Iterator[bytes]:
    start, end = len(_PNG), len(content)
    smallest = _PNG_SMALLEST_TRANSPARENCY.get(content[25]) if end > 25 else None
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", content, start)
        chunk = content[start : start + length + 12]
        start += length + 12
        is_whole = len(chunk) == length + 12 and crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        is_transparency = kind == b"tRNS" and smallest is not None and length >= smallest
        if kind in _PNG_PIXELS or (is_whole and (kind == b"eXIf" or is_transparency)):
            yield chunk
    yield b"\0\0\0\0IEND\xaeB`\x82"


def _strip_jpeg(content: bytes) -> Iterator[bytes]:
    start = len(_JPEG)
    while True:
        marker, length = struct.unpack_from(">xBH", content, start)
        if content[start] != 0xFF or marker == 0xDA:  # the scan, and all that follows
            yield content[start:]
            return
        is_metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not is_metadata or (marker in _JPEG_KEPT and (marker != 0xE0 or length >= _JFIF_LENGTH)):
            yield content[start : start + 2 + length]
        start += 2 + length


def _strip_webp(content: bytes) -> Iterator[bytes]:
    start = 12
    while start + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, start)
        chunk = content[start : start + 8 + length + length % 2]
        start += len(chunk)
        if kind == b"VP8X":  # whose flags say that there are a profile, EXIF and XMP data
            chunk = chunk[:8] + bytes([chunk[8] & ~0b101100]) + chunk[9:]
        if kind not in (b"ICCP", b"EXIF", b"XMP "):
            yield chunk


def _strip_tiff(content: bytes) -> bytes:
    """Append a directory of the first image's own tags, and point the header at it."""
    order = "<" if content.startswith(b"II") else ">"
    is_big = b"+" in content[:4]
    number, offset, entry = ("Q", "Q", 20) if is_big else ("H", "I", 12)
    place = 8 if is_big else 4
    (start,) = struct.unpack_from(order + offset, content, place)
    (count,) = struct.unpack_from(order + number, content, start)
    start += struct.calcsize(number)
    entries = [content[start + entry * each : start + entry * (each + 1)] for each in range(min(count, 2**16))]
    kept = [each for each in entries if len(each) == entry and struct.unpack(order + "H", each[:2])[0] in _TIFF_KEPT]
    header = content[:place] + struct.pack(order + offset, len(content)) + content[place + struct.calcsize(offset) :]
    return header + struct.pack(order + number, len(kept)) + b"".join(kept) + struct.pack(order + offset, 0)
