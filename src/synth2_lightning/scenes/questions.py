"""Scene to questions: what can be asked about a scene, with the one answer that is right.

The first two words of a question tell its kind. Answers are spread evenly within a kind, so that little can be guessed
without looking, and no question of the training split gives away that a combination is held out of it.
"""

from dataclasses import dataclass
from random import Random
from typing import assert_never

from synth2_lightning.scenes.grammar import name_several
from synth2_lightning.scenes.world import (
    Colour,
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
    """A question about a scene, and its answer of one or two words.

    Example:
        >>> Question("how many stars are there?", "2").kind
        'how many'
    """

    text: str
    answer: str

    @property
    def kind(self) -> str:
        """The first two words."""
        return " ".join(self.text.split()[:2])


def ask_scene(scene: Scene) -> Question:
    """Ask one question; equal scenes are asked the same.

    Every other question is about the arrangement (where, how many, on which side), for these are the hard ones; the
    rest are about looks: colour, shape, size, existence, and the background's colour and pattern.

    Args:
        scene: What is asked about.

    Example:
        >>> from synth2_lightning.scenes.world import scene_at
        >>> ask_scene(scene_at("train", 0))
        Question(text='what size is the pink circle?', answer='small')
    """
    random = Random(f"question/{scene.seed}")
    if random.random() < 0.5:
        return pick(random, _ask_arrangement(scene.content, random))
    return pick(random, _ask_looks(scene, random))


def _ask_arrangement(content: Content, random: Random) -> tuple[Question, ...]:
    match content:
        case Single(thing=thing, place=place):
            where = Question(f"where is the {thing.shape}?", place.value)
            return where, where, _ask_count(thing, 1)  # counts of one, two and three are then equally frequent
        case Group(thing=thing, count=count):
            return (_ask_count(thing, count),)
        case Pair(first=first, relation=relation, second=second):
            asked = [(first, second, _SIDES[relation][0]), (second, first, _SIDES[relation][1])]
            thing, other, side = pick(random, tuple(asked))
            return (Question(f"on which side of the {_paint(other)} is the {_paint(thing)}?", side),)
        case _:
            assert_never(content)


def _ask_count(thing: Thing, count: int) -> Question:
    return Question(f"how many {name_several(thing.shape)} are there?", str(count))


def _ask_looks(scene: Scene, random: Random) -> tuple[Question, ...]:
    things = _things(scene.content)
    thing = pick(random, things)
    others = [other for other in things if other is not thing]
    many = isinstance(scene.content, Group)
    be, shape, noun = ("are", name_several(thing.shape), "things") if many else ("is", thing.shape, "thing")
    questions = [
        Question(f"what size {be} the {thing.colour} {shape}?", thing.size.value),
        _ask_existence(thing, things, random),
        Question("which colour is the background?", scene.ground.value),
        Question("which pattern is on the background?", scene.pattern.value),
    ]
    if all(other.shape != thing.shape for other in others):
        questions.append(Question(f"what colour {be} the {shape}?", thing.colour.value))
    if all(other.colour != thing.colour for other in others):
        questions.append(Question(f"what shape {be} the {thing.colour} {noun}?", thing.shape.value))
    return tuple(questions)


def _ask_existence(thing: Thing, things: tuple[Thing, ...], random: Random) -> Question:
    if random.random() < 0.5:
        return Question(f"is there {_with_article(thing)}?", "yes")
    # What is missing differs from what is there by one word, and is never held out: a combination that training asks
    # about but never shows would be known for its answer.
    there = {(other.colour, other.shape) for other in things}
    missing = [
        absent
        for absent in (Thing(Size.SMALL, colour, shape) for colour in Colour for shape in Shape)
        if (absent.colour == thing.colour) != (absent.shape == thing.shape)
        and (absent.colour, absent.shape) not in there
        and not is_held_out(Group(absent, 2))
    ]
    return Question(f"is there {_with_article(pick(random, tuple(missing)))}?", "no")


def _things(content: Content) -> tuple[Thing, ...]:
    return (content.first, content.second) if isinstance(content, Pair) else (content.thing,)


def _paint(thing: Thing) -> str:
    return f"{thing.colour} {thing.shape}"


def _with_article(thing: Thing) -> str:
    return f"{'an' if thing.colour[0] in 'aeiou' else 'a'} {_paint(thing)}"
