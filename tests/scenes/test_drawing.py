from random import Random
from typing import Any

import numpy as np
import pytest

from synth2_lightning.scenes.drawing import SIDE, draw_scene, place_things
from synth2_lightning.scenes.world import (
    Color,
    Content,
    Ground,
    Group,
    Pair,
    Pattern,
    Place,
    Relation,
    Scene,
    Shape,
    Single,
    Size,
    Thing,
    sample_scene,
)

RED_SQUARE = Thing(Size.SMALL, Color.RED, Shape.SQUARE)
BLUE_RING = Thing(Size.LARGE, Color.BLUE, Shape.RING)


def draw(content: Content, ground: Ground = Ground.BLACK, pattern: Pattern = Pattern.PLAIN) -> np.ndarray[Any, Any]:
    return np.asarray(draw_scene(Scene(content, ground, pattern, seed=0))).astype(int)


def painted(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return where an image is colored: the backgrounds are gray."""
    spread = image.max(-1) - image.min(-1)
    return np.asarray(spread > 40)


def test_equal_scenes_give_equal_pixels() -> None:
    scene = sample_scene(Random(3))
    assert np.array_equal(np.asarray(draw_scene(scene)), np.asarray(draw_scene(scene)))
    assert np.asarray(draw_scene(scene)).shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("place", Place)
def test_a_single_thing_is_at_its_place(place: Place) -> None:
    rows, columns = np.nonzero(painted(draw(Single(RED_SQUARE, place))))
    height = "top" if rows.mean() < 24 else "bottom" if rows.mean() > 40 else ""
    width = "left" if columns.mean() < 24 else "right" if columns.mean() > 40 else ""
    assert (f"{height} {width}".strip() or "middle") == place


@pytest.mark.parametrize("count", [2, 3])
def test_a_group_covers_as_much_as_its_count(count: int) -> None:
    one = painted(draw(Single(RED_SQUARE, Place.MIDDLE))).sum()
    assert painted(draw(Group(RED_SQUARE, count))).sum() == count * one


@pytest.mark.parametrize(("relation", "axis"), [(Relation.LEFT_OF, 1), (Relation.ABOVE, 0)])
def test_relations_are_drawn_as_they_are_called(relation: Relation, axis: int) -> None:
    image = draw(Pair(RED_SQUARE, relation, BLUE_RING))
    red, blue = image[..., 0] > 150, image[..., 2] > 150
    assert np.nonzero(red)[axis].mean() + 20 < np.nonzero(blue)[axis].mean()


def test_all_shapes_sizes_and_colors_differ() -> None:
    images = {
        draw(Single(Thing(size, color, shape), Place.MIDDLE)).tobytes()
        for size in Size
        for color in Color
        for shape in Shape
    }
    assert len(images) == len(Size) * len(Color) * len(Shape)


def test_all_backgrounds_differ() -> None:
    single = Single(RED_SQUARE, Place.MIDDLE)
    images = {draw(single, ground, pattern).tobytes() for ground in Ground for pattern in Pattern}
    assert len(images) == len(Ground) * len(Pattern)


def test_things_stay_inside_and_apart() -> None:
    reach = {Size.SMALL: 7, Size.LARGE: 12}
    random = Random(0)
    for _ in range(500):
        scene = sample_scene(random)
        placed = place_things(scene.content, Random(scene.seed))
        for thing, x, y in placed:
            assert reach[thing.size] <= min(x, y)
            assert max(x, y) <= SIDE - reach[thing.size]
        for number, (thing, x, y) in enumerate(placed):
            for other, other_x, other_y in placed[:number]:
                assert max(abs(x - other_x), abs(y - other_y)) > reach[thing.size] + reach[other.size]


def test_edges_are_smooth() -> None:
    circle = Thing(Size.LARGE, Color.RED, Shape.CIRCLE)
    red = draw(Single(circle, Place.MIDDLE))[..., 0]
    assert len(np.unique(red)) > 5
