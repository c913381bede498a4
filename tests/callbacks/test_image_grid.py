import numpy as np
from PIL import Image

from synth2_lightning.callbacks.image_grid import draw_grid


def test_a_grid_has_rows_of_tiles() -> None:
    tiles = [Image.new("RGB", (10, 20), color) for color in ("red", "green", "blue")]
    grid = draw_grid(tiles, num_columns=2, gap=8, title="Step 5: colors")
    left, top = 12, 36
    assert grid.height == top + 20 + 8 + 20 + 12
    assert grid.getpixel((left + 5, top + 5)) == (255, 0, 0)
    assert grid.getpixel((left + 18 + 5, top + 5)) == (0, 128, 0)
    assert grid.getpixel((left + 5, top + 28 + 5)) == (0, 0, 255)
    assert grid.getpixel((left + 14, top + 5)) == grid.getpixel((5, top + 5)) == (255, 255, 255)
    assert (np.asarray(grid)[:top] < 128).any()  # the title


def test_a_title_is_not_cut() -> None:
    tile = Image.new("RGB", (10, 20))
    short, long = (draw_grid([tile], 4, 8, title) for title in ("a", "a longer title of a small grid"))
    assert short.width < long.width
