"""Questions about scenes, each with one correct answer.

The first two words of a question are its kind. Answers are balanced within a kind, so that a model without the image
scores low, and no question of the training split reveals which combinations are held out.
"""

from dataclasses import dataclass
from random import Random
from typing import assert_never

from synth2_lightning.scenes.grammar import name_several
from synth2_lightning.scenes.world import (
    Color,
    Content,
    Group,
    Pair,
    Relation,
    Scene,
    Shape,
    Single,
    Size,
    Thing,
    is_held_out,
    pick,
)

_SIDES = {Relation.LEFT_OF: ("left", "right"), Relation.ABOVE: ("top", "bottom")}


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a scene, and its answer of one or two words."""

    text: str
    answer: str

    @property
    def kind(self) -> str:
        """The first two words."""
        return " ".join(self.text.split()[:2])


def ask_scene(scene: Scene) -> Question:
    """Return a question about a scene; deterministic.

    Half of the questions are about the arrangement (where, how many, on which side), because these are the hardest; the
    others are about appearance: color, shape, size, existence, and the background's color and pattern.

    Example:
        >>> from synth2_lightning.scenes.world import scene_at
        >>> ask_scene(scene_at("train", 0))
        Question(text='what size is the pink circle?', answer='small')
    """
    random = Random(f"question/{scene.seed}")
    if random.random() < 0.5:
        return pick(random, _ask_arrangement(scene.content, random))
    return pick(random, _ask_appearance(scene, random))


def _ask_arrangement(content: Content, random: Random) -> tuple[Question, ...]:
    match content:
        case Single(thing=thing, place=place):
            where = Question(f"where is the {thing.shape}?", place.value)
            return where, where, _ask_count(thing, 1)  # makes counts of one, two and three equally frequent
        case Group(thing=thing, count=count):
            return (_ask_count(thing, count),)
        case Pair(first=first, relation=relation, second=second):
            orders = [(first, second, _SIDES[relation][0]), (second, first, _SIDES[relation][1])]
            thing, other, side = pick(random, tuple(orders))
            return (Question(f"on which side of the {_paint(other)} is the {_paint(thing)}?", side),)
        case _:
            assert_never(content)


def _ask_count(thing: Thing, count: int) -> Question:
    return Question(f"how many {name_several(thing.shape)} are there?", str(count))


def _ask_appearance(scene: Scene, random: Random) -> tuple[Question, ...]:
    things = _things(scene.content)
    thing = pick(random, things)
    others = [other for other in things if other is not thing]
    many = isinstance(scene.content, Group)
    be, shape, noun = ("are", name_several(thing.shape), "things") if many else ("is", thing.shape, "thing")
    questions = [
        Question(f"what size {be} the {thing.color} {shape}?", thing.size.value),
        _ask_existence(thing, things, random),
        Question("which colour is the background?", scene.ground.value),
        Question("which pattern is on the background?", scene.pattern.value),
    ]
    if all(other.shape != thing.shape for other in others):
        questions.append(Question(f"what colour {be} the {shape}?", thing.color.value))
    if all(other.color != thing.color for other in others):
        questions.append(Question(f"what shape {be} the {thing.color} {noun}?", thing.shape.value))
    return tuple(questions)


def _ask_existence(thing: Thing, things: tuple[Thing, ...], random: Random) -> Question:
    if random.random() < 0.5:
        return Question(f"is there {_with_article(thing)}?", "yes")
    # The absent thing differs from a present one by one word. It is never held out: otherwise the answer to a
    # combination that is absent from all training images would always be "no".
    present = {(other.color, other.shape) for other in things}
    missing = [
        absent
        for absent in (Thing(Size.SMALL, color, shape) for color in Color for shape in Shape)
        if (absent.color == thing.color) != (absent.shape == thing.shape)
        and (absent.color, absent.shape) not in present
        and not is_held_out(Group(absent, 2))
    ]
    return Question(f"is there {_with_article(pick(random, tuple(missing)))}?", "no")


def _things(content: Content) -> tuple[Thing, ...]:
    return (content.first, content.second) if isinstance(content, Pair) else (content.thing,)


def _paint(thing: Thing) -> str:
    return f"{thing.color} {thing.shape}"


def _with_article(thing: Thing) -> str:
    return f"{'an' if thing.color[0] in 'aeiou' else 'a'} {_paint(thing)}"
