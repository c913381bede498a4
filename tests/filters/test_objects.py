import pytest

from synth2_lightning.filters.objects import MissingObjectFilter, RepeatedObjectFilter
from synth2_lightning.types import CaptionRecord


@pytest.mark.parametrize(
    ("class_name", "caption"),
    [
        ("", "A machine."),
        ("dog", "A DOG's bowl."),
        ("dog", "Two dogs."),
        ("mouse", "Three mice."),
        ("mice", "A mouse."),
        ("bus", "Two buses."),
        ("glass", "Two glasses."),
        ("strawberry", "A bowl of strawberries."),
        ("knife", "Two knives."),
        ("wolf", "Two wolves."),
        ("fireman", "Two firemen."),
        ("man", "Two men."),
        ("TV", "Two TVs."),
        ("ski", "Red skis."),
        ("person", "Many people."),
        ("cactus", "Two cacti."),
        ("alga", "Green algae."),
        ("espresso maker", "Espresso comes out of a small maker."),
        ("snowshoe", "A pair of snow shoes."),
        ("snow shoe", "A pair of snowshoes."),
        ("tree-frog", "A tree frog on a leaf."),
        ("jack-o'-lantern", "A jack o' lantern glows."),
        ("crème brûlée", "A creme brulee in a bowl."),
        ("cup of tea", "A cup of tea."),
        ("dog + ball", "A ball lies beside two dogs."),
    ],
)
def test_names_are_found_in_every_form(class_name: str, caption: str) -> None:
    assert MissingObjectFilter().judge_one(CaptionRecord("a", caption, class_name)).reason == ""


@pytest.mark.parametrize(
    ("class_name", "caption"),
    [
        ("dog", "A hotdog."),
        ("cat", "A catalogue."),
        ("espresso maker", "An espresso machine."),
        ("bass", "A bas relief."),
        ("dog + ball", "Two dogs."),
        ("dog", ""),
    ],
)
def test_kindred_things_do_not_stand_for_a_name(class_name: str, caption: str) -> None:
    assert MissingObjectFilter().judge_one(CaptionRecord("a", caption, class_name)).reason == "does not name its object"


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("A bulldozer stands on a large bulldozer.", "names its object twice"),
        ("Bulldozers push a bulldozer.", "names its object twice"),
        ("A bulldozer pushes another bulldozer.", ""),
        ("A bulldozer. The bulldozer is yellow.", ""),
        ("A bulldozer pushes earth.", ""),
        ("A tractor.", ""),
    ],
)
def test_an_object_is_named_once_a_sentence(caption: str, reason: str) -> None:
    assert RepeatedObjectFilter().judge_one(CaptionRecord("a", caption, "bulldozer")).reason == reason


def test_each_word_of_a_name_comes_once_but_for_small_ones() -> None:
    judge = RepeatedObjectFilter()
    assert judge.judge_one(CaptionRecord("a", "Black tea in a black pot.", "black tea")).reason
    assert not judge.judge_one(CaptionRecord("a", "A cup of tea and a bit of milk.", "cup of tea")).reason
    assert not judge.judge_one(CaptionRecord("a", "A dog and a dog.", "")).reason
    assert judge.provenance() == MissingObjectFilter().provenance() == {}
