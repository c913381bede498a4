from random import Random

import pytest

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
    Split,
    Thing,
    sample_scene,
    scene_at,
)

ORANGE_CROSS = Thing(Size.LARGE, Color.ORANGE, Shape.CROSS)
PINK_STAR = Thing(Size.SMALL, Color.PINK, Shape.STAR)


def describe(content: Content) -> tuple[str, ...]:
    return describe_scene(Scene(content, Ground.GREY, Pattern.STRIPED, seed=0), num_captions=9)


def test_single() -> None:
    captions = describe(Single(ORANGE_CROSS, Place.TOP_LEFT))
    assert "a large orange cross in the top left corner of a striped grey background" in captions
    assert "there is an orange cross in the top left corner of the picture" in captions
    assert "somebody drew an orange cross on striped grey paper" in captions


def test_group() -> None:
    captions = describe(Group(ORANGE_CROSS, 3))
    assert "three large orange crosses on a striped grey background" in captions
    assert "all three of the crosses are orange and large" in captions


@pytest.mark.parametrize(
    ("relation", "straight", "inverse"),
    [(Relation.LEFT_OF, "to the left of", "to the right of"), (Relation.ABOVE, "above", "below")],
)
def test_a_pair_is_described_from_both_sides(relation: Relation, straight: str, inverse: str) -> None:
    captions = describe(Pair(ORANGE_CROSS, relation, PINK_STAR))
    assert f"a large orange cross {straight} a small pink star" in captions
    assert f"somebody drew a pink star {inverse} an orange cross on striped grey paper" in captions


def test_captions_are_five_different_ones_and_the_same_each_time() -> None:
    random = Random(0)
    for _ in range(200):
        scene = sample_scene(random)
        captions = describe_scene(scene)
        assert len(set(captions)) == 5
        assert captions == describe_scene(scene)


def test_captions_are_short_lower_case_sentences() -> None:
    captions = [text for index in range(1000) for text in describe_scene(scene_at("val", index))]
    lengths = [len(text.split()) for text in captions]
    assert min(lengths) >= 6
    assert max(lengths) <= 16
    assert all(text == " ".join(text.split()).lower() for text in captions)
    assert not any("{" in text for text in captions)
    words = {word for text in captions for word in text.split()}
    assert 60 <= len(words) <= 100


def test_held_out_scenes_need_no_new_word() -> None:
    def words(split: Split) -> set[str]:
        texts = (text for index in range(1500) for text in describe_scene(scene_at(split, index)))
        return {word for text in texts for word in text.split()}

    assert words("test") <= words("train")


@pytest.mark.parametrize("num_captions", [0, 10])
def test_more_captions_than_sentences_are_refused(num_captions: int) -> None:
    with pytest.raises(ValueError, match=rf"num_captions.* {num_captions}\b.*1 to 9"):
        describe_scene(scene_at("val", 0), num_captions)
