import json
import os
import socket
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from synth2_lightning.sources import images
from synth2_lightning.sources.images import center_crop, decode_image, keep_middle, pixel_limit, to_rgb


def test_image_is_turned_upright_by_its_exif_tag(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)

    assert decode_image(tmp_path / "turned.jpg", "turned").size == (2, 4)


def test_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"gone\.jpg.*read.*FileNotFoundError"):
        decode_image(tmp_path / "gone.jpg", "gone.jpg")


def test_what_is_no_image_is_named() -> None:
    with pytest.raises(OSError, match=r"text\.jpg.*read.*UnidentifiedImageError"):
        decode_image(BytesIO(b"words"), "text.jpg")


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_truncated_image_is_named(format: str) -> None:
    file = BytesIO()
    Image.effect_noise((64, 64), 50).save(file, format)

    with pytest.raises(OSError, match=r"half.*read"):
        decode_image(BytesIO(file.getvalue()[: len(file.getvalue()) // 2]), "half")


def test_broken_png_is_an_os_error() -> None:
    file = BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    content = bytearray(file.getvalue())
    content[45:60] = b"x" * 15

    with pytest.raises(OSError, match=r"broken.*read"):
        decode_image(BytesIO(bytes(content)), "broken")


def test_huge_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    file = BytesIO()
    Image.new("L", (64, 64)).save(file, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)

    with pytest.raises(OSError, match=r"bomb.*read.*DecompressionBombError"):
        decode_image(BytesIO(file.getvalue()), "bomb")


def decoded(image: Image.Image, format: str = "PNG", **options: object) -> Image.Image:
    file = BytesIO()
    image.save(file, format, **options)
    return decode_image(BytesIO(file.getvalue()), "image")


def test_what_is_transparent_becomes_white() -> None:
    red_on_nothing = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    red_on_nothing.putpixel((1, 0), (255, 0, 0, 255))
    assert [decoded(red_on_nothing).getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (255, 0, 0)]
    assert decoded(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_palettes_keep_their_colors_and_their_transparency() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert decoded(image).getpixel((1, 0)) == (200, 100, 50)
    clear = decoded(image, transparency=0)
    assert [clear.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 100, 50)]


def test_cmyk_becomes_rgb() -> None:
    image = decoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    red, green, blue = image.getpixel((4, 4))  # type: ignore[misc]
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_greys_of_16_bits_are_scaled_and_not_clipped(format: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    image = decoded(Image.fromarray(values), format)
    assert np.asarray(image)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], dtype=np.float32), [0, 128, 255]),
        (np.array([[-10.0, 0.0, 10.0]], dtype=np.float32), [0, 128, 255]),
        (np.array([[7.0, 7.0, 7.0]], dtype=np.float32), [0, 0, 0]),
        (np.array([[-100000, 0, 100000]], dtype=np.int32), [0, 128, 255]),
    ],
)
def test_greys_without_a_white_of_their_own_are_stretched(values: np.ndarray, expected: list[int]) -> None:
    assert np.asarray(decoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_image_is_taken(format: str) -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "lime")]
    image = decoded(frames[0], format, save_all=True, append_images=frames[1:])
    red, green, _ = image.getpixel((8, 8))  # type: ignore[misc]
    assert red > 200 > 50 > green


def test_large_images_are_refused_by_the_limit_that_is_given() -> None:
    file = BytesIO()
    Image.new("L", (64, 64)).save(file, "PNG")
    with pytest.raises(OSError, match=r"64.*64.*4095"):
        decode_image(BytesIO(file.getvalue()), "bomb", max_pixels=4095)
    assert decode_image(BytesIO(file.getvalue()), "fair", max_pixels=4096).size == (64, 64)


def test_more_pixels_than_pillow_allows_can_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    file = BytesIO()
    Image.new("L", (64, 64)).save(file, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pixel_limit(3000), pytest.raises(OSError, match=r"3000.*refused"):  # Pillow would only warn
        decode_image(BytesIO(file.getvalue()), "large", max_pixels=3000)
    with pixel_limit(5000):
        assert decode_image(BytesIO(file.getvalue()), "large", max_pixels=5000).size == (64, 64)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_pixels.*0.*1"), pixel_limit(0):
        pass


def test_large_jpegs_are_decoded_smaller_but_never_below_twice_the_target_size() -> None:
    file = BytesIO()
    Image.new("RGB", (1600, 800), "red").save(file, "JPEG")
    assert decode_image(BytesIO(file.getvalue()), "wide", wanted_size=100).size == (400, 200)
    assert decode_image(BytesIO(file.getvalue()), "wide", wanted_size=300).size == (1600, 800)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    for file in (tmp_path / "empty.jpg", BytesIO()):
        with pytest.raises(OSError, match=r"empty\.jpg.*empty.*0"):
            decode_image(file, "empty.jpg")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"read.*IsADirectoryError"):
        decode_image(tmp_path, "folder")


@pytest.mark.parametrize("size", [(1, 1_000_000), (1_000_000, 1), (3, 3001), (65_000, 2), (1, 1001)])
@pytest.mark.parametrize("mode", ["1", "RGB"])
def test_a_thread_of_pixels_is_refused_before_it_is_decoded(size: tuple[int, int], mode: str) -> None:
    with pytest.raises(OSError, match=f"image cannot be read: .*{size[0]} x {size[1]} pixels.*1000 times"):
        decoded(Image.new(mode, size), "PNG")


@pytest.mark.parametrize("size", [(1, 1000), (5000, 5), (2, 133), (64, 5000)])
def test_of_a_long_image_the_middle_is_kept_as_it_was(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "red")
    image.paste("blue", (size[0] // 3, size[1] // 3, size[0] - size[0] // 3, size[1] - size[1] // 3))
    middle = keep_middle(image)
    assert max(middle.size) <= 65 * min(middle.size)
    assert center_crop(image, 8).tobytes() == center_crop(middle, 8).tobytes()
    assert center_crop(image, 8).getpixel((4, 4)) == (0, 0, 255)


DEEP = np.linspace(0, 65535, 40 * 30).reshape(30, 40)
MODES = {
    "1": Image.linear_gradient("L").convert("1"),
    "P with transparency": Image.linear_gradient("L").convert("P"),
    "LA": Image.merge("LA", (Image.linear_gradient("L"), Image.radial_gradient("L"))),
    "RGBA": Image.merge("RGBA", (Image.linear_gradient("L"), *[Image.radial_gradient("L")] * 3)),
    "CMYK": Image.merge("CMYK", [Image.linear_gradient("L")] * 4),
    "I;16": Image.fromarray(DEEP.astype(np.uint16)),
    "I": Image.fromarray((DEEP * 7 - 9).astype(np.int32)),
    "F": Image.fromarray(DEEP.astype(np.float32)),
}
MODES["P with transparency"].info["transparency"] = 3


@pytest.mark.parametrize("kind", MODES)
def test_converting_in_bands_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = to_rgb(MODES[kind])
    monkeypatch.setattr(images, "_NUM_BAND_PIXELS", 300)
    assert to_rgb(MODES[kind]).tobytes() == whole.tobytes()


@pytest.mark.parametrize("kind", MODES)
def test_large_images_are_reduced_on_their_way_to_rgb(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image, format = MODES[kind], "TIFF" if kind in ("CMYK", "I", "F") else "PNG"
    whole = decoded(image, format)
    monkeypatch.setattr(images, "_NUM_LARGE_PIXELS", 100)
    file = BytesIO()
    image.save(file, format)
    reduced = decode_image(file, "large", wanted_size=3)
    assert 4 * 3 <= min(reduced.size) < min(whole.size)
    if kind not in ("1", "P with transparency"):  # single pixels of these modes are not comparable
        difference = ImageChops.difference(center_crop(reduced, 3), center_crop(whole, 3))
        assert int(np.asarray(difference).max()) <= 40


def test_photos_keep_all_of_their_pixels() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(decoded(Image.fromarray(noise), "PNG")), noise)


def test_an_image_that_exceeds_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    file = BytesIO()
    Image.new("L", (4, 4)).save(file, "PNG")

    def fail(*_: object) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(images, "_convert", fail)
    with pytest.raises(OSError, match=r"large\.png.*read.*memory"):
        decode_image(file, "large.png")


def test_pipes_sockets_and_devices_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name in ("pipe", "endless", "socket"):
            with pytest.raises(OSError, match=rf"The image {name} cannot be read: .*(pipe|socket|device)"):
                decode_image(tmp_path / name, name)


MEASURE = """
import json, sys
from pathlib import Path
from synth2_lightning.sources.images import center_crop
from synth2_lightning.sources.images import decode_image

def peak():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))

costs = {}
for name in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    center_crop(decode_image(Path(name), name, wanted_size=224), 224)
    costs[Path(name).name] = 1024 * (peak() - before)
print(json.dumps(costs))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a while")
def test_an_image_costs_what_its_own_pixels_take_and_little_more(tmp_path: Path) -> None:
    side = 5000
    bytes_per_pixel = {"1": 1, "L": 1, "I;16": 2, "LA": 4, "RGB": 4, "P": 1}
    for mode in bytes_per_pixel:
        image = Image.new(mode, (side, side))
        if mode == "P":
            image.info["transparency"] = 0
        image.save(tmp_path / f"{mode}.png", compress_level=1)
    names = [str(tmp_path / f"{mode}.png") for mode in bytes_per_pixel]
    done = subprocess.run([sys.executable, "-c", MEASURE, *names], check=True, capture_output=True, text=True)
    costs = json.loads(done.stdout)
    for mode, size in bytes_per_pixel.items():
        assert costs[f"{mode}.png"] < size * side**2 + 48 * 2**20, mode
