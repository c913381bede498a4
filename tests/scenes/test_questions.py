"""Answers are compared with those of a second method; answers that are right without the image are counted."""

from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cache
from itertools import chain
from random import Random

import pytest

from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.scenes.drawing import place_things
from synth2_lightning.scenes.grammar import name_several
from synth2_lightning.scenes.questions import Question, ask_scene
from synth2_lightning.scenes.world import Color, Group, Scene, Shape, Single, Size, Split, Thing, is_held_out, scene_at

KINDS = {
    "what colour",
    "what shape",
    "what size",
    "how many",
    "where is",
    "on which",
    "is there",
    "which colour",
    "which pattern",
}
SHAPES = {word: shape for shape in Shape for word in (shape.value, name_several(shape))}


@cache
def ask_scenes(split: Split) -> list[tuple[Scene, Question]]:
    """Return the first 3000 scenes of a split with their questions."""
    return [(scene, ask_scene(scene)) for scene in (scene_at(split, index) for index in range(3000))]


def located(scene: Scene) -> list[tuple[Thing, int, int]]:
    """Return all drawn things with their positions."""
    return place_things(scene.content, Random(scene.seed))


def only(values: set[str]) -> str:
    (value,) = values  # otherwise the question is ambiguous
    return value


def named(scene: Scene, words: list[str]) -> list[tuple[Thing, int, int]]:
    """Return the drawn things of the color or shape (or both) in the words."""
    return [
        found
        for found in located(scene)
        if all(SHAPES[word] == found[0].shape for word in words if word in SHAPES)
        and all(word == found[0].color for word in words if word not in SHAPES and word not in ("thing", "things"))
    ]


def place(scene: Scene, words: list[str]) -> str:
    ((_, x, y),) = named(scene, words[3:])
    row, column = ("top", "", "bottom")[(y - 8) // 16], ("left", "", "right")[(x - 8) // 16]
    return f"{row} {column}".strip() or "middle"


def side(scene: Scene, words: list[str]) -> str:
    ((_, x, y),), ((_, other_x, other_y),) = named(scene, words[9:11]), named(scene, words[5:7])
    if abs(x - other_x) > abs(y - other_y):
        return "left" if x < other_x else "right"
    return "top" if y < other_y else "bottom"


ANSWERS: dict[str, Callable[[Scene, list[str]], str]] = {
    "what colour": lambda scene, words: only({thing.color.value for thing, *_ in named(scene, words[4:])}),
    "what shape": lambda scene, words: only({thing.shape.value for thing, *_ in named(scene, words[4:])}),
    "what size": lambda scene, words: only({thing.size.value for thing, *_ in named(scene, words[4:])}),
    "how many": lambda scene, words: str(len(named(scene, words[2:3]))),
    "where is": place,
    "on which": side,
    "is there": lambda scene, words: "yes" if named(scene, words[3:]) else "no",
    "which colour": lambda scene, words: scene.ground.value,
    "which pattern": lambda scene, words: scene.pattern.value,
}


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_every_answer_is_what_the_scene_shows(split: Split) -> None:
    asked = set()
    for scene, question in ask_scenes(split)[:2000]:
        asked.add(question.kind)
        assert question.answer == ANSWERS[question.kind](scene, question.text.removesuffix("?").split()), question
    assert asked == KINDS


def test_equal_scenes_have_equal_questions() -> None:
    assert [ask_scene(scene_at("train", index)) for index in range(20)] == [
        question for _, question in ask_scenes("train")[:20]
    ]


@pytest.mark.parametrize("split", ["train", "val", "held_out"])
def test_answers_are_balanced_for_each_kind_of_question(split: Split) -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for _, question in ask_scenes(split):
        answers[question.kind][question.answer] += 1
    for kind, counts in answers.items():
        assert max(counts.values()) / counts.total() < 1.25 / len(counts) + 0.03, (kind, counts)
    assert sum(max(counts.values()) for counts in answers.values()) / 3000 < 0.33


def test_training_questions_have_no_held_out_combination() -> None:
    for _, question in ask_scenes("train"):
        words = question.text.removesuffix("?").split()
        if words[:2] == ["is", "there"]:
            assert not is_held_out(Group(Thing(Size.SMALL, Color(words[3]), SHAPES[words[4]]), 2)), words


def test_what_is_missing_differs_by_one_word_from_what_is_there() -> None:
    denied = [(scene, q) for scene, q in ask_scenes("train") if q.kind == "is there" and q.answer == "no"]
    assert len(denied) > 80
    for scene, question in denied:
        color, shape = question.text.removesuffix("?").split()[3:]
        assert any((thing.color == color) != (thing.shape == shape) for thing, *_ in located(scene))


def test_one_thing_is_spoken_of_as_one_and_several_as_several() -> None:
    for scene, question in ask_scenes("train")[:500]:
        if question.kind in ("what colour", "what size", "what shape"):
            assert question.text.split()[2] == ("are" if isinstance(scene.content, Group) else "is")
        assert question.kind != "where is" or isinstance(scene.content, Single)


def test_the_vocabulary_that_ships_has_every_word() -> None:
    config = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 8}
    tokenizer = NewLanguageModel(config, "package://synth2_lightning/scenes/question_vocabulary").tokenizer
    asked = [*ask_scenes("train")[:1500], *ask_scenes("held_out")[:1500]]
    words = sorted({word for _, each in asked for word in chain(each.text.split(), each.answer.split())})
    assert tokenizer.unk_token_id not in tokenizer(" ".join(words))["input_ids"]
