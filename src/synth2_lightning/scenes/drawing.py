"""Rendering of scenes to 64 by 64 images, anti-aliased by 4x supersampling."""

import math
from random import Random
from typing import assert_never

from PIL import Image, ImageDraw

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
    pick,
)

SIDE = 64
"""Height and width of an image in pixels."""

_SCALE = 4
_RADIUS = {Size.SMALL: 7.0, Size.LARGE: 12.0}
_PAINT = {
    Color.RED: (214, 40, 40),
    Color.ORANGE: (245, 130, 20),
    Color.YELLOW: (250, 210, 40),
    Color.GREEN: (50, 165, 70),
    Color.BLUE: (40, 90, 215),
    Color.PURPLE: (125, 55, 165),
    Color.PINK: (245, 135, 195),
}
_SHADES = {
    Ground.WHITE: ((252, 252, 252), (226, 226, 226)),
    Ground.GREY: ((150, 150, 150), (124, 124, 124)),
    Ground.BLACK: ((14, 14, 14), (46, 46, 46)),
}
_NEAR, _MID, _FAR = 16, 32, 48
_CENTERS = dict(zip(Place, [(x, y) for y in (_NEAR, _MID, _FAR) for x in (_NEAR, _MID, _FAR)], strict=True))


def draw_scene(scene: Scene) -> Image.Image:
    """Return the image of a scene; deterministic.

    Example:
        >>> from synth2_lightning.scenes.world import scene_at
        >>> draw_scene(scene_at("train", 0)).size
        (64, 64)
    """
    image = _draw_ground(scene.ground, scene.pattern)
    canvas = ImageDraw.Draw(image)
    for thing, x, y in place_things(scene.content, Random(scene.seed)):
        _draw_thing(canvas, thing, x * _SCALE, y * _SCALE)
    return image.reduce(_SCALE)


def place_things(content: Content, random: Random) -> list[tuple[Thing, int, int]]:
    """Return every thing with the x and y of its center in pixels; things do not overlap and are inside the image."""
    match content:
        case Single(thing=thing, place=place):
            x, y = _CENTERS[place]
            return [(thing, _jitter(random, x, 2), _jitter(random, y, 2))]
        case Group(thing=thing, count=count):
            corners = [(_NEAR, _NEAR), (_FAR, _NEAR), (_NEAR, _FAR), (_FAR, _FAR)]
            while len(corners) > count:
                corners.remove(pick(random, tuple(corners)))
            return [(thing, _jitter(random, x, 2), _jitter(random, y, 2)) for x, y in corners]
        case Pair(first=first, relation=relation, second=second):
            across = _jitter(random, _MID, 8)
            centers = [(_jitter(random, along, 2), _jitter(random, across, 2)) for along in (_NEAR, _FAR)]
            if relation is Relation.ABOVE:
                centers = [(y, x) for x, y in centers]
            return [(thing, *center) for thing, center in zip((first, second), centers, strict=True)]
        case _:
            assert_never(content)


def _jitter(random: Random, position: int, reach: int) -> int:
    return pick(random, tuple(range(position - reach, position + reach + 1)))


def _draw_ground(ground: Ground, pattern: Pattern) -> Image.Image:
    light, dark = _SHADES[ground]
    image = Image.new("RGB", (SIDE * _SCALE, SIDE * _SCALE), light)
    canvas = ImageDraw.Draw(image)
    side = 16 * _SCALE
    for row in range(4):
        if pattern is Pattern.STRIPED:
            canvas.rectangle((0, row * side + side // 2, 4 * side, (row + 1) * side - 1), dark)
        elif pattern is Pattern.CHECKED:
            for column in range(row % 2, 4, 2):
                left, top = column * side, row * side
                canvas.rectangle((left, top, left + side - 1, top + side - 1), dark)
    return image


def _draw_thing(canvas: ImageDraw.ImageDraw, thing: Thing, x: int, y: int) -> None:
    radius, paint = _RADIUS[thing.size] * _SCALE, _PAINT[thing.color]
    box = (x - radius, y - radius, x + radius - 1, y + radius - 1)
    if thing.shape is Shape.CIRCLE:
        canvas.ellipse(box, paint)
    elif thing.shape is Shape.RING:
        canvas.ellipse(box, outline=paint, width=round(0.42 * radius))
    else:
        canvas.polygon([(x + radius * u, y + radius * v) for u, v in _OUTLINES[thing.shape]], paint)


def _star() -> list[tuple[float, float]]:
    tips = [(1.08 if tip % 2 == 0 else 0.45, math.pi * (tip / 5 - 0.5)) for tip in range(10)]
    return [(length * math.cos(angle), length * math.sin(angle)) for length, angle in tips]


def _cross(arm: float = 0.36) -> list[tuple[float, float]]:
    quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    outline = []
    for _ in range(4):
        outline += quarter
        quarter = [(-y, x) for x, y in quarter]
    return outline


def _heart(num_points: int = 32) -> list[tuple[float, float]]:
    # The heart curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, scaled to unit size.
    outline = []
    for point in range(num_points):
        t = 2 * math.pi * point / num_points
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        outline.append((math.sin(t) ** 3, -(y + 2.5) / 15))
    return outline


_OUTLINES = {
    Shape.SQUARE: [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    Shape.TRIANGLE: [(0.0, -1.0), (1.0, 0.9), (-1.0, 0.9)],
    Shape.STAR: _star(),
    Shape.CROSS: _cross(),
    Shape.HEART: _heart(),
}
