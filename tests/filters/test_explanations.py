import pytest

from synth2_lightning.filters.explanations import ExplanationFilter
from synth2_lightning.types import CaptionRecord

EXPLAINS, STATES = "defines a thing", "states facts about a thing"


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("A bulldozer is a machine that pushes earth.", EXPLAINS),
        ("A bowl of apples on a table is a simple fruit.", EXPLAINS),
        ("Bulldozers are heavy machines that push earth.", EXPLAINS),
        ("A bird, also known as a yellow finch, on a branch.", EXPLAINS),
        ("A ratel (honey badger) on a rock.", EXPLAINS),
        ("A man holds an instrument that is a compass.", EXPLAINS),
        ("A tool is used to dig.", STATES),
        ("A bird native to Chile.", STATES),
        ("Cheese made from milk on a plate.", STATES),
        ("A fish that lives in the sea.", STATES),
        ("A plant can be eaten.", STATES),
        ("Goldfinches often sing.", STATES),
        ("Your dog is waiting.", "addresses the reader"),
        ("What is on the table?", "addresses the reader"),
        ("Imagine a dog.", "addresses the reader"),
        ("Never use the brush.", "addresses the reader"),
        ("I see a dog.", "mentions its writer"),
        ("A dog in our garden.", "mentions its writer"),
        ("A caption with a dog.", "mentions words"),
        ("A fresh coffee in the morning. #coffee", "is written for a web page"),
        ("A dog \N{DOG FACE} in the snow.", "is written for a web page"),
    ],
)
def test_explanations_are_rejected(caption: str, reason: str) -> None:
    assert ExplanationFilter().judge_one(CaptionRecord("a", caption)).reason == reason


@pytest.mark.parametrize(
    "caption",
    [
        "There is a dog on the bed.",
        "In the corner is a chair.",
        "A sign says “Are you here?” beside the road.",
        "A city can be seen behind a dog.",
        "A man on an I-beam.",
        "Using a phone, a man waits.",
        "Two dogs are on a bed.",
        "A woman takes a picture of a cake.",
        "A dog carries an object.",
        "Men wait in a US airport.",
    ],
)
def test_descriptions_stay(caption: str) -> None:
    judge = ExplanationFilter()
    assert judge.judge_one(CaptionRecord("a", caption)).reason == ("mentions its writer" if "US" in caption else "")
    assert judge.provenance() == {}
