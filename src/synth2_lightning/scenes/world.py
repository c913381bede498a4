"""What a scene is, how one is sampled, and which combinations training never sees."""

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Literal, TypeVar, assert_never

Split = Literal["train", "val", "test", "held_out"]
Option = TypeVar("Option")


class Shape(StrEnum):
    """Outline of a thing."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"
    CROSS = "cross"
    RING = "ring"
    HEART = "heart"


class Colour(StrEnum):
    """Paint of a thing."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    BLUE = "blue"
    PURPLE = "purple"
    PINK = "pink"


class Size(StrEnum):
    """A thing is 14 or 24 pixels wide, wherever it is."""

    SMALL = "small"
    LARGE = "large"


class Place(StrEnum):
    """Where a single thing is; in reading order."""

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
    """How the first thing of a pair lies to the second.

    There is no "right of" and no "below": each picture of a pair has one description, and the grammar turns it
    around where it likes.
    """

    LEFT_OF = "left of"
    ABOVE = "above"


class Ground(StrEnum):
    """Paint of the background."""

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
    """A drawn object."""

    size: Size
    colour: Colour
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
    """Two things that differ in shape or colour."""

    first: Thing
    relation: Relation
    second: Thing


Content = Single | Group | Pair


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture before it is drawn or described.

    Args:
        content: What is in it.
        ground: Colour of the background.
        pattern: Texture of the background.
        seed: Decides what the attributes leave open: exact pixels, and wording.

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
    """Make a scene of a split, whichever were made before.

    Scenes of ``train`` hold no combination that is held out, and those of ``held_out`` all do; those of ``val`` and
    ``test`` may hold any, and about every fourth does.

    Args:
        split: Part of the world.
        index: Number of the scene, from zero.
        seed: Other seeds are other worlds of the same kind.

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
    """Draw from all scenes, held out or not."""
    return Scene(
        content=_sample_content(random),
        ground=pick(random, tuple(Ground)),
        pattern=pick(random, tuple(Pattern)),
        seed=int(random.random() * 2**32),
    )


def is_held_out(content: Content) -> bool:
    """Whether training never sees such a content.

    One in seven (shape, colour) and one in seven (relation, shape, shape) is held out, along diagonals: each
    shape, each colour, each relation and each side of a relation is trained on, in other company.

    Example:
        >>> is_held_out(Group(Thing(Size.SMALL, Colour.RED, Shape.HEART), 2))
        True
        >>> is_held_out(Group(Thing(Size.SMALL, Colour.BLUE, Shape.HEART), 2))
        False
    """
    match content:
        case Single(thing=thing) | Group(thing=thing):
            return _is_held_out_paint(thing)
        case Pair(first=first, relation=relation, second=second):
            return (
                _is_held_out_paint(first)
                or _is_held_out_paint(second)
                or (_rank(relation) + _rank(first.shape) + 3 * _rank(second.shape)) % len(Shape) == 0
            )
        case _:
            assert_never(content)


def pick(random: Random, options: tuple[Option, ...]) -> Option:
    """Choose one option.

    ``Random.choice`` may change with the version of Python; ``Random.random`` is promised not to.
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
    while (other.colour, other.shape) == (thing.colour, thing.shape):
        other = _sample_thing(random)
    return Pair(thing, pick(random, tuple(Relation)), other)


def _sample_thing(random: Random) -> Thing:
    return Thing(pick(random, tuple(Size)), pick(random, tuple(Colour)), pick(random, tuple(Shape)))


def _is_held_out_paint(thing: Thing) -> bool:
    return (_rank(thing.shape) + 3 * _rank(thing.colour)) % len(Shape) == 6


def _rank(option: StrEnum) -> int:
    return list(type(option)).index(option)
