"""Scene to captions: one scene, several differently built sentences, one word for each attribute."""

from random import Random
from typing import Any, NamedTuple, assert_never

from synth2_lightning.scenes.world import Group, Pair, Place, Relation, Scene, Shape, Single, Thing, pick

_SINGLE = (
    "{thing.full} {where} of {ground.full}",
    "there is {thing.brief} {where} of the picture",
    "a picture of {thing.full} on {ground.full}",
    "{ground.full} with {thing.brief} {where}",
    "{where} we see a {thing.shape} that is {thing.size} and {thing.colour}",
    "a {thing.shape} painted in {thing.colour} {where} of {ground.brief}",
    "the {thing.shape} {where} is {thing.colour} and {thing.size}",
    "somebody drew {thing.brief} on {ground.pattern} {ground.colour} paper",
    "one {thing.size} {thing.shape} in {thing.colour} and nothing else",
)
_GROUP = (
    "{count} {thing.plural} on {ground.full}",
    "there are {count} {thing.brief_plural} in the picture",
    "a picture of {count} {thing.plural} on {ground.full}",
    "{ground.full} with {count} {thing.brief_plural} on it",
    "we see {count} {thing.shapes} that are {thing.size} and {thing.colour}",
    "{count} {thing.shapes} painted in {thing.colour} on {ground.brief}",
    "all {count} of the {thing.shapes} are {thing.colour} and {thing.size}",
    "somebody drew {count} {thing.brief_plural} on {ground.pattern} {ground.colour} paper",
    "a group of {count} {thing.size} {thing.shapes} in {thing.colour}",
)
_PAIR = (
    "{first.full} {relation} {second.full}",
    "there is {first.brief} {relation} {second.brief}",
    "a picture of {first.full} and {second.full}",
    "{ground.full} with {first.brief} and {second.brief}",
    "we see a {first.shape} in {first.colour} {relation} a {second.shape} in {second.colour}",
    "{first.brief} is painted {relation} {second.brief} on {ground.brief}",
    "the {first.shape} is {first.colour} and {first.size} and the {second.shape} is {second.colour} and {second.size}",
    "somebody drew {second.brief} {inverse} {first.brief} on {ground.pattern} {ground.colour} paper",
    "the {first.size} {first.shape} is {relation} the {second.size} {second.shape}",
)
_RELATIONS = {
    Relation.LEFT_OF: ("to the left of", "to the right of"),
    Relation.ABOVE: ("above", "below"),
}
_WHERE = {
    Place.TOP_LEFT: "in the top left corner",
    Place.TOP: "at the top",
    Place.TOP_RIGHT: "in the top right corner",
    Place.LEFT: "on the left side",
    Place.MIDDLE: "in the middle",
    Place.RIGHT: "on the right side",
    Place.BOTTOM_LEFT: "in the bottom left corner",
    Place.BOTTOM: "at the bottom",
    Place.BOTTOM_RIGHT: "in the bottom right corner",
}
_COUNTS = {2: "two", 3: "three"}


def describe_scene(scene: Scene, num_captions: int = 5) -> tuple[str, ...]:
    """Write captions of a scene, each built in another way; equal scenes give equal captions.

    Works for every scene, held out of training or not. As with people, not every caption names every attribute;
    what it names, it names with the one word that all captions have for it.

    Args:
        scene: What is described.
        num_captions: How many, 1 to 9.

    Raises:
        ValueError: If the grammar has fewer ways to say it.

    Example:
        >>> from synth2_lightning.scenes.world import scene_at
        >>> describe_scene(scene_at("train", 0))[3]
        'a picture of a small pink circle on a striped white background'
    """
    templates, names = _templates_and_names(scene)
    if not 1 <= num_captions <= len(templates):
        raise ValueError(f"describe_scene was asked for {num_captions} captions; expected 1 to {len(templates)}.")
    random = Random(f"captions/{scene.seed}")
    captions: list[str] = []
    while len(captions) < num_captions:
        template = pick(random, templates)
        templates = tuple(other for other in templates if other != template)
        captions.append(template.format_map(names))
    return tuple(captions)


def name_several(shape: Shape) -> str:
    """Give the word for several things of a shape.

    Example:
        >>> name_several(Shape.CROSS)
        'crosses'
    """
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


class _ThingNames(NamedTuple):
    """What templates can call a thing, or several of its kind."""

    size: str
    colour: str
    shape: str
    shapes: str
    full: str
    brief: str
    plural: str
    brief_plural: str


class _GroundNames(NamedTuple):
    """What templates can call the background."""

    pattern: str
    colour: str
    full: str
    brief: str


def _templates_and_names(scene: Scene) -> tuple[tuple[str, ...], dict[str, Any]]:
    pattern, colour = scene.pattern, scene.ground
    ground = _GroundNames(pattern, colour, f"a {pattern} {colour} background", f"a {colour} background")
    match scene.content:
        case Single(thing=thing, place=place):
            return _SINGLE, {"ground": ground, "thing": _name(thing), "where": _WHERE[place]}
        case Group(thing=thing, count=count):
            return _GROUP, {"ground": ground, "thing": _name(thing), "count": _COUNTS[count]}
        case Pair(first=first, relation=relation, second=second):
            straight, inverse = _RELATIONS[relation]
            names = {"first": _name(first), "second": _name(second), "relation": straight, "inverse": inverse}
            return _PAIR, {"ground": ground, **names}
        case _:
            assert_never(scene.content)


def _name(thing: Thing) -> _ThingNames:
    size, colour, shape = thing.size, thing.colour, thing.shape
    shapes = name_several(shape)
    return _ThingNames(
        size=size,
        colour=colour,
        shape=shape,
        shapes=shapes,
        full=f"a {size} {colour} {shape}",
        brief=f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}",
        plural=f"{size} {colour} {shapes}",
        brief_plural=f"{colour} {shapes}",
    )
