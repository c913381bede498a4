"""Metadata of image files: reading the orientation, and removing metadata that prevents decoding."""

import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from zlib import crc32

from PIL import ExifTags, Image

_TRANSPOSES = {
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
"""Minimum number of bytes of a tRNS chunk, by color type; other color types have no such chunk."""
_JPEG_KEPT = (0xE0, 0xE1, 0xEE)
"""Application segments that are kept: JFIF, EXIF, and Adobe's, which defines the color space."""
_JFIF_LENGTH = 16
_TIFF_KEPT = frozenset(
    {254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 338, 339}
    | {347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532}
)
"""TIFF tags that decoding needs, and the orientation."""


def find_transpose(image: Image.Image) -> Image.Transpose | None:
    """Return the transpose that applies the orientation of the EXIF or XMP data; ``None`` if there is none to apply.

    Args:
        image: Loaded image whose file is still open.

    Example:
        >>> image = Image.new("RGB", (2, 1))
        >>> image.getexif()[0x0112] = 6
        >>> find_transpose(image).name
        'ROTATE_270'
    """
    try:
        return _TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # invalid metadata raises errors of any class
        return None


def strip_metadata(file: Path | BytesIO) -> BytesIO | None:
    """Return a copy of an image file without metadata that may fail to decode; ``None`` for other formats.

    Pillow rejects PNG files with an oversized compressed ICC profile or text or a wrong checksum of a metadata chunk,
    WebP files with a truncated EXIF chunk, and TIFF files with an invalid offset. Browsers display all of them.

    Args:
        file: Path or content of an image file.
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
    except struct.error:  # the file ends inside a length field
        pass
    return None


def _strip_png(content: bytes) -> Iterator[bytes]:
    start, end = len(_PNG), len(content)
    smallest = _PNG_SMALLEST_TRANSPARENCY.get(content[25]) if end > 25 else None
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", content, start)
        chunk = content[start : start + length + 12]
        start += length + 12
        is_intact = len(chunk) == length + 12 and crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        is_transparency = kind == b"tRNS" and smallest is not None and length >= smallest
        if kind in _PNG_PIXELS or (is_intact and (kind == b"eXIf" or is_transparency)):
            yield chunk
    yield b"\0\0\0\0IEND\xaeB`\x82"


def _strip_jpeg(content: bytes) -> Iterator[bytes]:
    start = len(_JPEG)
    while True:
        marker, length = struct.unpack_from(">xBH", content, start)
        if content[start] != 0xFF or marker == 0xDA:  # start of scan
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
        if kind == b"VP8X":  # clear the flags of ICC profile, EXIF and XMP
            chunk = chunk[:8] + bytes([chunk[8] & ~0b101100]) + chunk[9:]
        if kind not in (b"ICCP", b"EXIF", b"XMP "):
            yield chunk


def _strip_tiff(content: bytes) -> bytes:
    """Append a directory with the kept tags of the first image, and set the header's offset to it."""
    order = "<" if content.startswith(b"II") else ">"
    is_big = b"+" in content[:4]
    number, offset, entry = ("Q", "Q", 20) if is_big else ("H", "I", 12)
    position = 8 if is_big else 4
    (start,) = struct.unpack_from(order + offset, content, position)
    (count,) = struct.unpack_from(order + number, content, start)
    start += struct.calcsize(number)
    entries = [content[start + entry * each : start + entry * (each + 1)] for each in range(min(count, 2**16))]
    kept = [each for each in entries if len(each) == entry and struct.unpack(order + "H", each[:2])[0] in _TIFF_KEPT]
    rest = content[position + struct.calcsize(offset) :]
    header = content[:position] + struct.pack(order + offset, len(content)) + rest
    return header + struct.pack(order + number, len(kept)) + b"".join(kept) + struct.pack(order + offset, 0)
