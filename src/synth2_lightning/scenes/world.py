"""Scenes, their sampling, and the combinations that are held out of training."""

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Literal, TypeVar, assert_never

Split = Literal["train", "val", "test", "held_out"]
Option = TypeVar("Option")


class Shape(StrEnum):
    """Shape of a thing."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"
    CROSS = "cross"
    RING = "ring"
    HEART = "heart"


class Color(StrEnum):
    """Color of a thing."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    BLUE = "blue"
    PURPLE = "purple"
    PINK = "pink"


class Size(StrEnum):
    """Size of a thing: 14 or 24 pixels wide."""

    SMALL = "small"
    LARGE = "large"


class Place(StrEnum):
    """Position of a single thing."""

    TOP_LEFT = "top left"
    TOP = "top"
    TOP_RIGHT = "top right"
    LEFT = "left"
    MIDDLE = "middle"
    RIGHT = "right"
    BOTTOM_LEFT = "bottom left"
    BOTTOM = "bottom"
    BOTTOM_RIGHT = "bottom right"


class Relation(StrEnum):
    """Position of the first thing of a pair relative to the second.

    There is no "right of" and no "below", so that each scene has one representation; captions also use the inverse.
    """

    LEFT_OF = "left of"
    ABOVE = "above"


class Ground(StrEnum):
    """Color of the background."""

    WHITE = "white"
    GREY = "grey"
    BLACK = "black"


class Pattern(StrEnum):
    """Texture of the background."""

    PLAIN = "plain"
    STRIPED = "striped"
    CHECKED = "checked"


@dataclass(frozen=True, slots=True)
class Thing:
    """A shape of one size and color."""

    size: Size
    color: Color
    shape: Shape


@dataclass(frozen=True, slots=True)
class Single:
    """One thing at a place."""

    thing: Thing
    place: Place


@dataclass(frozen=True, slots=True)
class Group:
    """Two or three equal things."""

    thing: Thing
    count: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two things that differ in shape or color."""

    first: Thing
    relation: Relation
    second: Thing


Content = Single | Group | Pair


@dataclass(frozen=True, slots=True)
class Scene:
    """The attributes of an image and its captions.

    Args:
        content: The things in the image.
        ground: Color of the background.
        pattern: Texture of the background.
        seed: Seed of the exact positions and of the wording of captions.

    Example:
        >>> scene = sample_scene(Random(0))
        >>> scene == sample_scene(Random(0))
        True
    """

    content: Content
    ground: Ground
    pattern: Pattern
    seed: int


def scene_at(split: Split, index: int, seed: int = 0) -> Scene:
    """Return a scene of a split; deterministic and independent of other scenes.

    No scene of ``train`` has a held-out combination, and all scenes of ``held_out`` have one; about a quarter of the
    scenes of ``val`` and ``test`` have one.

    Example:
        >>> scene_at("val", 7) == scene_at("val", 7)
        True
    """
    random = Random(f"scenes/{seed}/{split}/{index}")
    scene = sample_scene(random)
    while split in ("train", "held_out") and is_held_out(scene.content) != (split == "held_out"):
        scene = sample_scene(random)
    return scene


def sample_scene(random: Random) -> Scene:
    """Sample a scene, held out or not."""
    return Scene(
        content=_sample_content(random),
        ground=pick(random, tuple(Ground)),
        pattern=pick(random, tuple(Pattern)),
        seed=int(random.random() * 2**32),
    )


def is_held_out(content: Content) -> bool:
    """Return whether a content has a combination that is held out of training.

    One in seven (shape, color) and one in seven (relation, shape, shape) is held out, along diagonals: each
    shape, color, relation and side of a relation occurs in training, in other combinations.

    Example:
        >>> is_held_out(Group(Thing(Size.SMALL, Color.RED, Shape.HEART), 2))
        True
        >>> is_held_out(Group(Thing(Size.SMALL, Color.BLUE, Shape.HEART), 2))
        False
    """
    match content:
        case Single(thing=thing) | Group(thing=thing):
            return _is_held_out_thing(thing)
        case Pair(first=first, relation=relation, second=second):
            return (
                _is_held_out_thing(first)
                or _is_held_out_thing(second)
                or (_rank(relation) + _rank(first.shape) + 3 * _rank(second.shape)) % len(Shape) == 0
            )
        case _:
            assert_never(content)


def pick(random: Random, options: tuple[Option, ...]) -> Option:
    """Return a random option.

    ``Random.choice`` may change with the version of Python; ``Random.random`` is documented to stay the same.
    """
    return options[int(random.random() * len(options))]


def _sample_content(random: Random) -> Content:
    thing = _sample_thing(random)
    kind = random.random()
    if kind < 0.35:
        return Single(thing, pick(random, tuple(Place)))
    if kind < 0.6:
        return Group(thing, pick(random, (2, 3)))
    other = _sample_thing(random)
    while (other.color, other.shape) == (thing.color, thing.shape):
        other = _sample_thing(random)
    return Pair(thing, pick(random, tuple(Relation)), other)


def _sample_thing(random: Random) -> Thing:
    return Thing(pick(random, tuple(Size)), pick(random, tuple(Color)), pick(random, tuple(Shape)))


def _is_held_out_thing(thing: Thing) -> bool:
    return (_rank(thing.shape) + 3 * _rank(thing.color)) % len(Shape) == 6


def _rank(option: StrEnum) -> int:
    return list(type(option)).index(option)
