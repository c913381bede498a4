from collections import Counter
from random import Random

import pytest

from synth2_lightning.scenes.world import (
    Color,
    Content,
    Ground,
    Group,
    Pair,
    Pattern,
    Relation,
    Scene,
    Shape,
    Single,
    Size,
    Split,
    Thing,
    is_held_out,
    sample_scene,
    scene_at,
)


def things(content: Content) -> list[Thing]:
    return [content.first, content.second] if isinstance(content, Pair) else [content.thing]


def test_a_scene_depends_on_nothing_but_split_index_and_seed() -> None:
    alone = scene_at("val", 5, seed=3)
    in_passing = [scene_at("val", index, seed=3) for index in range(6)]
    assert in_passing[5] == alone
    assert len({scene_at(split, 5, seed) for split in ("train", "val", "test") for seed in (0, 1)}) == 6


def test_scenes_are_the_same_on_every_machine() -> None:
    thing = Thing(Size.SMALL, Color.PINK, Shape.CIRCLE)
    scene = scene_at("train", 0)
    assert isinstance(scene.content, Single)
    assert scene.content.thing == thing
    assert (scene.ground, scene.pattern, scene.seed) == (Ground.WHITE, Pattern.STRIPED, 2610932533)


def test_training_has_no_held_out_combination() -> None:
    contents = [scene_at("train", index).content for index in range(3000)]
    assert not any(is_held_out(content) for content in contents)
    paints = {(thing.color, thing.shape) for content in contents for thing in things(content)}
    assert len(paints) == len(Color) * len(Shape) - 7


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_holds_both_kinds(split: Split) -> None:
    fraction = sum(is_held_out(scene_at(split, index).content) for index in range(1000)) / 1000
    assert 0.15 < fraction < 0.35


def test_every_word_of_a_held_out_combination_is_trained_on_in_other_company() -> None:
    pairs = [content for index in range(3000) if isinstance(content := scene_at("train", index).content, Pair)]
    for relation in Relation:
        assert {pair.first.shape for pair in pairs if pair.relation is relation} == set(Shape)
        assert {pair.second.shape for pair in pairs if pair.relation is relation} == set(Shape)


def test_a_relation_is_held_out_by_itself() -> None:
    def pair(relation: Relation) -> Pair:
        first, second = Thing(Size.SMALL, Color.RED, Shape.CIRCLE), Thing(Size.LARGE, Color.BLUE, Shape.CIRCLE)
        return Pair(first, relation, second)

    assert is_held_out(pair(Relation.LEFT_OF))
    assert not is_held_out(pair(Relation.ABOVE))


def test_samples_are_balanced_and_pairs_are_distinguishable() -> None:
    random = Random(0)
    scenes = [sample_scene(random) for _ in range(2000)]
    kinds = Counter(type(scene.content) for scene in scenes)
    assert all(kinds[kind] > 400 for kind in (Single, Group, Pair))
    for attribute in (Counter(scene.ground for scene in scenes), Counter(scene.pattern for scene in scenes)):
        assert min(attribute.values()) > 0.8 * max(attribute.values())
    for scene in scenes:
        if isinstance(scene.content, Pair):
            first, second = scene.content.first, scene.content.second
            assert (first.color, first.shape) != (second.color, second.shape)


def test_a_scene_is_a_value() -> None:
    scene = sample_scene(Random(1))
    assert scene == Scene(scene.content, scene.ground, scene.pattern, scene.seed)
    assert hash(scene) == hash(sample_scene(Random(1)))


def test_what_training_lacks_is_a_split_of_its_own() -> None:
    contents = {split: [scene_at(split, index).content for index in range(200)] for split in ("train", "held_out")}
    assert not any(is_held_out(content) for content in contents["train"])
    assert all(is_held_out(content) for content in contents["held_out"])
    assert {type(content) for content in contents["held_out"]} == {Single, Group, Pair}
