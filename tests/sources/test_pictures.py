from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from synth2_lightning.sources.pictures import decode_picture


def test_picture_is_turned_upright_by_its_exif_tag(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)

    assert decode_picture(tmp_path / "turned.jpg", "turned").size == (2, 4)


def test_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"The picture gone\.jpg cannot be read: FileNotFoundError"):
        decode_picture(tmp_path / "gone.jpg", "gone.jpg")


def test_what_is_no_picture_is_named() -> None:
    with pytest.raises(OSError, match=r"The picture text\.jpg cannot be read: UnidentifiedImageError"):
        decode_picture(BytesIO(b"words"), "text.jpg")


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_truncated_picture_is_named(format: str) -> None:
    file = BytesIO()
    Image.effect_noise((64, 64), 50).save(file, format)

    with pytest.raises(OSError, match="The picture half cannot be read"):
        decode_picture(BytesIO(file.getvalue()[: len(file.getvalue()) // 2]), "half")


def test_broken_png_is_an_os_error() -> None:
    file = BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    content = bytearray(file.getvalue())
    content[45:60] = b"x" * 15

    with pytest.raises(OSError, match="The picture broken cannot be read"):
        decode_picture(BytesIO(bytes(content)), "broken")


def test_huge_picture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    file = BytesIO()
    Image.new("L", (64, 64)).save(file, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)

    with pytest.raises(OSError, match="The picture bomb cannot be read: DecompressionBombError"):
        decode_picture(BytesIO(file.getvalue()), "bomb")
