from PIL import Image

from synth2_lightning.callbacks.image_grid import draw_grid


def test_a_grid_has_rows_of_tiles() -> None:
    tiles = [Image.new("RGB", (10, 20), color) for color in ("red", "green", "blue")]
    grid = draw_grid(tiles, num_columns=2, gap=8)
    assert grid.size == (36, 56)
    assert grid.getpixel((5, 5)) == (255, 0, 0)
    assert grid.getpixel((20, 5)) == (0, 128, 0)
    assert grid.getpixel((5, 30)) == (0, 0, 255)
    assert grid.getpixel((14, 5)) == grid.getpixel((25, 40)) == (255, 255, 255)
