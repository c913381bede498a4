import pytest

from synth2_lightning.filters.explanations import ExplanationFilter
from synth2_lightning.types import CaptionRecord

EXPLAINS, KNOWS = "says what a thing is", "says what is known of a thing"


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("A bulldozer is a machine that pushes earth.", EXPLAINS),
        ("A bowl of apples on a table is a simple fruit.", EXPLAINS),
        ("Bulldozers are heavy machines that push earth.", EXPLAINS),
        ("A bird, also known as a yellow finch, on a branch.", EXPLAINS),
        ("A ratel (honey badger) on a rock.", EXPLAINS),
        ("A man holds an instrument that is a compass.", EXPLAINS),
        ("A tool is used to dig.", KNOWS),
        ("A bird native to Chile.", KNOWS),
        ("Cheese made from milk on a plate.", KNOWS),
        ("A fish that lives in the sea.", KNOWS),
        ("A plant can be eaten.", KNOWS),
        ("Goldfinches often sing.", KNOWS),
        ("Your dog is waiting.", "speaks to the reader"),
        ("What is on the table?", "speaks to the reader"),
        ("Imagine a dog.", "speaks to the reader"),
        ("Never use the brush.", "speaks to the reader"),
        ("I see a dog.", "speaks of its writer"),
        ("A dog in our garden.", "speaks of its writer"),
        ("A caption with a dog.", "speaks of words"),
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
    assert judge.judge_one(CaptionRecord("a", caption)).reason == ("speaks of its writer" if "US" in caption else "")
    assert judge.provenance() == {}
