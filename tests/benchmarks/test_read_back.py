from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from read_back import NUM_SENTENCES, Question, count_codes, find_scene, make_questions, read
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.scenes.grammar import describe_scene
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
    is_held_out,
    scene_at,
)
from synth2_lightning.types import ImageTextBatch, Pixels, SampleInfo, TokenLoss, VQTokens

ORANGE_CROSS = Thing(Size.LARGE, Color.ORANGE, Shape.CROSS)
PINK_STAR = Thing(Size.SMALL, Color.PINK, Shape.STAR)
RED_HEART = Thing(Size.SMALL, Color.RED, Shape.HEART)


def questions(content: Content, sentence: str) -> list[Question]:
    scene = Scene(content, Ground.GREY, Pattern.STRIPED, seed=0)
    return list(make_questions(0, scene, describe_scene(scene, NUM_SENTENCES).index(sentence)))


def others(content: Content, sentence: str) -> list[tuple[str, int, str]]:
    """Return, for each question, the attribute, the number of other sentences, and the last of them."""
    return [(asked.attribute, len(asked.others), asked.others[-1]) for asked in questions(content, sentence)]


def test_attributes_of_a_sentence_are_queried_in_its_own_words() -> None:
    assert others(Group(ORANGE_CROSS, 3), "all three of the crosses are orange and large") == [
        ("count", 1, "all two of the crosses are orange and large"),
        ("shape", 6, "all three of the hearts are orange and large"),
        ("color", 6, "all three of the crosses are pink and large"),
        ("size", 1, "all three of the crosses are orange and small"),
    ]
    assert others(Single(ORANGE_CROSS, Place.TOP), "somebody drew an orange cross on striped grey paper") == [
        ("shape", 6, "somebody drew an orange heart on striped grey paper"),
        ("color", 6, "somebody drew a pink cross on striped grey paper"),
        ("ground", 2, "somebody drew an orange cross on striped black paper"),
        ("pattern", 2, "somebody drew an orange cross on checked grey paper"),
    ]


def test_a_relation_is_held_against_the_other_one_and_both_the_other_way_round() -> None:
    pair = Pair(ORANGE_CROSS, Relation.LEFT_OF, PINK_STAR)
    relation = questions(pair, "somebody drew a pink star to the right of an orange cross on striped grey paper")[0]
    assert relation.attribute == "relation"
    assert relation.others == (
        "somebody drew a pink star below an orange cross on striped grey paper",
        "somebody drew an orange cross to the right of a pink star on striped grey paper",
        "somebody drew an orange cross below a pink star on striped grey paper",
    )
    told_apart_by_order = questions(pair, "a picture of a large orange cross and a small pink star")
    assert "relation" not in {asked.attribute for asked in told_apart_by_order}


def test_no_sentence_is_of_two_equal_things() -> None:
    pair = Pair(ORANGE_CROSS, Relation.ABOVE, Thing(Size.SMALL, Color.PINK, Shape.CROSS))
    asked = questions(pair, "there is an orange cross above a pink cross")
    colors = [question.others for question in asked if question.attribute == "color"]
    assert list(map(len, colors)) == [5, 5]
    assert not any("a pink cross above a pink cross" in text for texts in colors for text in texts)


def test_a_combination_is_held_out_only_where_it_is_named() -> None:
    pair = Pair(RED_HEART, Relation.LEFT_OF, PINK_STAR)
    assert is_held_out(pair)
    assert questions(pair, "a small red heart to the left of a small pink star")[0].split == "held_out"
    assert questions(pair, "the small heart is to the left of the small star")[0].split == "seen"

    pair = Pair(PINK_STAR, Relation.LEFT_OF, Thing(Size.LARGE, Color.GREEN, Shape.HEART))
    assert is_held_out(pair)
    assert questions(pair, "the small star is to the left of the large heart")[0].split == "held_out"
    assert questions(pair, "a picture of a small pink star and a large green heart")[0].split == "seen"


def test_the_scene_of_a_record_is_found() -> None:
    for index in range(50):
        scene = scene_at("val", index, seed=1)
        for way, caption in enumerate(describe_scene(scene, NUM_SENTENCES)):
            assert find_scene(f"scenes-val-{index:06d}-3~1", caption, seed=1) == (scene, way)
    with pytest.raises(ValueError, match=r"Scenes.*\bseed 0\b.*--seed"):
        find_scene("scenes-val-000000-0", caption, seed=0)
    with pytest.raises(ValueError, match=r"'a dog'.*'17'"):
        find_scene("17", "a dog", seed=1)


def test_the_likeliest_sentence_is_what_is_read() -> None:
    def loss(visual: torch.Tensor, texts: tuple[str, ...]) -> TokenLoss:
        """Return a loss that is 0 for "b" in row 0 and for "c" in row 1."""
        seen = ["bc"[int(row)] for row in visual.flatten()]
        sums = torch.tensor([float(text != word) for text, word in zip(texts, seen, strict=True)])
        return TokenLoss(sums, torch.ones(len(texts), dtype=torch.long))

    module = cast(VisionLanguageModule, SimpleNamespace(decoder=SimpleNamespace(loss=loss)))
    asked: list[Any] = [Question(row, "seen", "shape", true, tuple("abc".replace(true, ""))) for row, true in
                        ((0, "b"), (0, "a"), (1, "b"), (1, "c"))]  # fmt: skip
    assert read(module, torch.arange(2.0).view(2, 1, 1), asked) == [True, False, False, True]
    assert read(module, torch.arange(2.0).view(2, 1, 1), asked * 100) == [True, False, False, True] * 100


def test_the_different_tokens_of_each_image_are_counted() -> None:
    ids = torch.tensor([[[0, 1], [0, 1], [0, 2]], [[3, 3], [1, 3], [3, 1]]])
    samples = (SampleInfo("0", "scenes"), SampleInfo("1", "scenes"))
    batch = ImageTextBatch(VQTokens(ids, "tiny"), ("a", "b"), samples)
    assert count_codes(batch) == [2, 3]
    with pytest.raises(SystemExit, match=r"Pixels.*expected image tokens"):
        count_codes(ImageTextBatch(Pixels(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)), ("a", "b"), samples))
