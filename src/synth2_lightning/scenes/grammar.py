"""Captions of scenes, from templates."""

from random import Random
from types import SimpleNamespace
from typing import assert_never

from synth2_lightning.scenes.world import Group, Pair, Place, Relation, Scene, Shape, Single, Thing, pick

_SINGLE = (
    "{thing.full} {where} of {ground.full}",
    "there is {thing.brief} {where} of the picture",
    "a picture of {thing.full} on {ground.full}",
    "{ground.full} with {thing.brief} {where}",
    "{where} we see a {thing.shape} that is {thing.size} and {thing.color}",
    "a {thing.shape} painted in {thing.color} {where} of {ground.brief}",
    "the {thing.shape} {where} is {thing.color} and {thing.size}",
    "somebody drew {thing.brief} on {ground.pattern} {ground.color} paper",
    "one {thing.size} {thing.shape} in {thing.color} and nothing else",
)
_GROUP = (
    "{count} {thing.plural} on {ground.full}",
    "there are {count} {thing.brief_plural} in the picture",
    "a picture of {count} {thing.plural} on {ground.full}",
    "{ground.full} with {count} {thing.brief_plural} on it",
    "we see {count} {thing.shapes} that are {thing.size} and {thing.color}",
    "{count} {thing.shapes} painted in {thing.color} on {ground.brief}",
    "all {count} of the {thing.shapes} are {thing.color} and {thing.size}",
    "somebody drew {count} {thing.brief_plural} on {ground.pattern} {ground.color} paper",
    "a group of {count} {thing.size} {thing.shapes} in {thing.color}",
)
_PAIR = (
    "{first.full} {relation} {second.full}",
    "there is {first.brief} {relation} {second.brief}",
    "a picture of {first.full} and {second.full}",
    "{ground.full} with {first.brief} and {second.brief}",
    "we see a {first.shape} in {first.color} {relation} a {second.shape} in {second.color}",
    "{first.brief} is painted {relation} {second.brief} on {ground.brief}",
    "the {first.shape} is {first.color} and {first.size} and the {second.shape} is {second.color} and {second.size}",
    "somebody drew {second.brief} {inverse} {first.brief} on {ground.pattern} {ground.color} paper",
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
    """Return 1 to 9 captions of a scene, each from another template; deterministic.

    Not every caption names every attribute, but all captions name an attribute by the same word.

    Raises:
        ValueError: If there are fewer templates.

    Example:
        >>> from synth2_lightning.scenes.world import scene_at
        >>> describe_scene(scene_at("train", 0))[3]
        'a picture of a small pink circle on a striped white background'
    """
    templates, names = _templates_and_names(scene)
    if not 1 <= num_captions <= len(templates):
        raise ValueError(f"describe_scene.num_captions is {num_captions}; expected 1 to {len(templates)}.")
    random = Random(f"captions/{scene.seed}")
    captions: list[str] = []
    while len(captions) < num_captions:
        template = pick(random, templates)
        templates = tuple(remaining for remaining in templates if remaining != template)
        captions.append(template.format_map(names))
    return tuple(captions)


def name_several(shape: Shape) -> str:
    """Return the plural of a shape's name."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def _templates_and_names(scene: Scene) -> tuple[tuple[str, ...], dict[str, object]]:
    pattern, color = scene.pattern, scene.ground
    full, brief = f"a {pattern} {color} background", f"a {color} background"
    ground = SimpleNamespace(pattern=pattern, color=color, full=full, brief=brief)
    match scene.content:
        case Single(thing=thing, place=place):
            return _SINGLE, {"ground": ground, "thing": _name(thing), "where": _WHERE[place]}
        case Group(thing=thing, count=count):
            return _GROUP, {"ground": ground, "thing": _name(thing), "count": _COUNTS[count]}
        case Pair(first=first, relation=relation, second=second):
            forward, inverse = _RELATIONS[relation]
            things = {"first": _name(first), "second": _name(second)}
            return _PAIR, {"ground": ground, **things, "relation": forward, "inverse": inverse}
        case _:
            assert_never(scene.content)


def _name(thing: Thing) -> SimpleNamespace:
    """Return the template fields of one thing, or of several equal ones."""
    size, color, shape = thing.size, thing.color, thing.shape
    shapes = name_several(shape)
    return SimpleNamespace(
        size=size,
        color=color,
        shape=shape,
        shapes=shapes,
        full=f"a {size} {color} {shape}",
        brief=f"{'an' if color[0] in 'aeiou' else 'a'} {color} {shape}",
        plural=f"{size} {color} {shapes}",
        brief_plural=f"{color} {shapes}",
    )
