import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from synth2_lightning.sources.image_metadata import find_transpose, strip_metadata
from synth2_lightning.sources.images import decode_image

TURNED = struct.pack("<HHII", 0x112, 3, 1, 6)  # upright after a quarter turn
WRONG_TYPE = struct.pack("<HHI", 0x128, 2, 4) + b"abc\xff"  # a unit of resolution that is a text
NOWHERE = struct.pack("<HHII", 0x8769, 4, 1, 2**31)  # a directory of EXIF tags beyond the end


def save(format: str, **options: object) -> bytes:
    file = BytesIO()
    image = Image.new("RGB", (8, 4), "red")
    image.paste("blue", (4, 0, 8, 4))
    image.save(file, format, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png(*chunks: bytes, after: bool = False) -> bytes:
    whole = save("PNG")
    place = len(whole) - 12 if after else 33
    return whole[:place] + b"".join(chunks) + whole[place:]


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    whole = save("JPEG", quality=95)
    written = (struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data for marker, data in segments)
    return whole[:2] + b"".join(written) + whole[2:]


def exif(*tags: bytes) -> bytes:
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(tags) + b"\0" * 4


def webp(kind: bytes, data: bytes, end: int | None = None) -> bytes:
    whole = save("WEBP", lossless=True, exif=exif(TURNED))
    place = whole.index(b"EXIF")
    size = struct.unpack("<I", whole[place + 4 : place + 8])[0]
    content = whole[:place] + kind + struct.pack("<I", size if end else len(data)) + data
    return content[:4] + struct.pack("<I", len(content) - 8) + content[8:]


def tiff(*tags: bytes, **options: object) -> bytes:
    """Return a TIFF with more tags in its directory, which moves to the end of the file."""
    whole = save("TIFF", **options)
    start = int.from_bytes(whole[4:8], "little")
    count = int.from_bytes(whole[start : start + 2], "little")
    entries = [whole[start + 2 + 12 * each : start + 14 + 12 * each] for each in range(count)]
    entries = sorted([*entries, *tags], key=lambda entry: int.from_bytes(entry[:2], "little"))
    moved = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0" * 4
    return whole[:4] + struct.pack("<I", len(whole)) + whole[8:] + moved


BOMB = zlib.compress(b"\0" * 2**21)
SPOILED: dict[str, Callable[[], bytes]] = {
    "PNG: EXIF that is none": lambda: png(chunk(b"eXIf", b"Exif\0\0garbage")),
    "PNG: a profile that unpacks to 2 MB": lambda: png(chunk(b"iCCP", b"icc\0\0" + BOMB)),
    "PNG: a text that unpacks to 2 MB": lambda: png(chunk(b"zTXt", b"Comment\0\0" + BOMB)),
    "PNG: an international text that unpacks to 2 MB": lambda: png(chunk(b"iTXt", b"XMP\0\1\0\0\0" + BOMB)),
    "PNG: 70 MB of texts": lambda: png(chunk(b"tEXt", b"Comment\0" + b"a" * 10**6) * 70),
    "PNG: a text that is no zlib stream": lambda: png(chunk(b"zTXt", b"Comment\0\0not packed")),
    "PNG: a text of an unknown packing": lambda: png(chunk(b"zTXt", b"Comment\0\7" + BOMB)),
    "PNG: a text with a wrong checksum": lambda: png(chunk(b"tEXt", b"Comment\0a fox", crc=7)),
    "PNG: an sRGB chunk without content": lambda: png(chunk(b"sRGB", b"")),
    "PNG: a resolution that is cut": lambda: png(chunk(b"pHYs", b"\0\0")),
    "PNG: a transparency that is cut": lambda: png(chunk(b"tRNS", b"\0")),
    "PNG: an animation's head that is cut": lambda: png(chunk(b"acTL", b"\0")),
    "PNG: a text behind the pixels that unpacks to 2 MB": lambda: png(
        chunk(b"zTXt", b"Comment\0\0" + BOMB), after=True
    ),
    "PNG: no end": lambda: save("PNG")[:-12],
    "PNG: garbage behind its end": lambda: save("PNG") + b"garbage" * 99,
    "JPEG: EXIF that is none": lambda: jpeg((0xE1, b"Exif\0\0garbage")),
    "JPEG: EXIF of a wrong type": lambda: jpeg((0xE1, exif(WRONG_TYPE))),
    "JPEG: EXIF that points to nowhere": lambda: jpeg((0xE1, exif(NOWHERE))),
    "JPEG: XMP that is none": lambda: jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe<")),
    "JPEG: parts of a profile without the others": lambda: jpeg((0xE2, b"ICC_PROFILE\0\7\3garbage")),
    "JPEG: a profile that is cut": lambda: jpeg((0xE2, b"ICC_PROFILE\0")),
    "JPEG: an index of further images that is none": lambda: jpeg((0xE2, b"MPF\0II*\0\x08\0\0\0\1\0garbage")),
    "JPEG: an index without a count": lambda: jpeg((0xE2, b"MPF\0II*\0\x08\0\0\0\0\0\0\0\0\0")),
    "JPEG: Photoshop's notes, cut": lambda: jpeg((0xED, b"Photoshop 3.0\x008BIM\4")),
    "JPEG: Photoshop's notes without content": lambda: jpeg((0xED, b"Photoshop 3.0\x008BIM\4\x04\0")),
    "JPEG: a JFIF head that is cut": lambda: jpeg((0xE0, b"JFIF\0")),
    "JPEG: garbage behind its end": lambda: jpeg() + b"garbage" * 99,
    "WebP: EXIF that is none": lambda: webp(b"EXIF", b"Exif\0\0garbage!"),
    "WebP: EXIF that is cut": lambda: webp(b"EXIF", b"Exif", end=1),
    "WebP: XMP that is none": lambda: webp(b"XMP ", b"\xff\xfe<"),
    "TIFF: EXIF that points to nowhere": lambda: tiff(NOWHERE),
    "TIFF: a resolution that is a text": lambda: tiff(WRONG_TYPE),
    "TIFF: a profile beyond the end": lambda: tiff(struct.pack("<HHII", 34675, 7, 2**20, 2**30)),
    "TIFF: XMP of an unknown type": lambda: tiff(struct.pack("<HHII", 700, 99, 7, 0)),
    "TIFF, packed: EXIF that points to nowhere": lambda: tiff(NOWHERE, compression="tiff_deflate"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about damaged metadata
@pytest.mark.parametrize("kind", SPOILED)
def test_an_intact_image_with_damaged_metadata_is_used(kind: str, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(SPOILED[kind]())
    image = decode_image(tmp_path / "image", kind)
    assert image.size == (8, 4)
    left, right = image.getpixel((0, 0)), image.getpixel((7, 3))
    assert left[0] > 200 > 60 > left[2]  # type: ignore[index]
    assert right[2] > 200 > 60 > right[0]  # type: ignore[index]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "content",
    [
        jpeg((0xE1, exif(TURNED, WRONG_TYPE))),
        jpeg((0xE1, exif(TURNED, NOWHERE))),
        jpeg((0xE1, exif(TURNED)), (0xE2, b"MPF\0II*\0\x08\0\0\0\0\0\0\0\0\0")),
        png(chunk(b"eXIf", exif(TURNED, WRONG_TYPE)[6:])),
        png(chunk(b"eXIf", exif(TURNED)[6:]), chunk(b"iCCP", b"icc\0\0" + BOMB)),
        png(chunk(b"eXIf", exif(TURNED)[6:]), chunk(b"tEXt", b"Comment\0a fox", crc=7)),
        webp(b"EXIF", exif(TURNED, WRONG_TYPE)),
        tiff(TURNED, WRONG_TYPE),
        tiff(TURNED, NOWHERE),
    ],
)
def test_a_readable_orientation_is_used_despite_damaged_metadata(content: bytes) -> None:
    assert decode_image(BytesIO(content), "turned").size == (4, 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_truncated_pixels_are_bad_with_any_metadata(kind: str) -> None:
    image, file = Image.effect_noise((64, 64), 50).convert("RGB"), BytesIO()
    image.save(file, kind)
    with pytest.raises(OSError, match=r"half.*read"):
        decode_image(BytesIO(file.getvalue()[: len(file.getvalue()) // 2]), "half")


def test_what_is_stripped_keeps_colors_transparency_and_orientation() -> None:
    clear = Image.new("P", (2, 1), 0)
    clear.putpalette([10, 20, 30, 200, 100, 50])
    clear.putpixel((1, 0), 1)
    file = BytesIO()
    clear.save(file, "PNG", transparency=0, exif=exif(TURNED))
    stripped = strip_metadata(file)
    assert stripped is not None
    with Image.open(stripped) as image:
        image.load()
        transpose = find_transpose(image)
        assert transpose is not None
        assert transpose.name == "ROTATE_270"
        assert image.convert("RGBA").getpixel((0, 0)) == (10, 20, 30, 0)


def test_colors_of_jpeg_survive_stripping() -> None:
    file = BytesIO()
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(file, "JPEG", quality=100)
    stripped = strip_metadata(file)
    assert stripped is not None
    assert decode_image(stripped, "stripped").tobytes() == decode_image(file, "whole").tobytes()


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"II*\0"]
)
def test_what_has_no_metadata_or_no_end_is_left_to_the_decoder(content: bytes) -> None:
    with pytest.raises(OSError, match=r"bad.*cannot be read"):
        decode_image(BytesIO(content), "bad")
