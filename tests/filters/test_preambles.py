import time

import pytest

from synth2_lightning.filters.preambles import PreambleStripper
from synth2_lightning.types import CaptionRecord


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("Sure, here is a caption: A dog runs.", "A dog runs."),
        ("Sure! A dog runs.", "A dog runs."),
        ("Certainly! Here's a short caption for the image:\n\nA dog runs.\nIt is brown.", "A dog runs."),
        ("Here’s one: “A dog runs.”", "A dog runs."),  # noqa: RUF001
        ("Caption: A dog runs.", "A dog runs."),
        ("**Image caption:** *A dog runs.*", "A dog runs."),
        ("Caption for dog: A dog runs.", "A dog runs."),
        ("Word: dog\nCaption: A dog runs.", "A dog runs."),
        ("Object: dog\n\n- A dog runs.", "A dog runs."),
        ("1. A dog runs.\n2. A dog sleeps.", "A dog runs."),
        ("# A dog runs.", "A dog runs."),
        ("```text\nA dog runs.\n```", "A dog runs."),
        ("'A dog runs.'", "A dog runs."),
        ('"A dog runs.', '"A dog runs.'),
        ('"Stop" is on the sign, and "go"', '"Stop" is on the sign, and "go"'),
        ("The image shows a dog that runs.", "A dog that runs."),
        ("This photo depicts two dogs.", "Two dogs."),
        ("  A   dog\truns. ", "A dog runs."),
        ("Final caption: A dog runs.", "A dog runs."),
        ("Alt text: A dog runs.", "A dog runs."),
        ("Option 1: A dog runs.\nOption 2: A dog sleeps.", "A dog runs."),
        ("描述\uff1a「A dog runs.」", "A dog runs."),
        ("«A dog runs.»", "A dog runs."),
        ("„Ein Hund läuft.“", "Ein Hund läuft."),
        ("«Stop» and «go»", "«Stop» and «go»"),
        ("Sure! Here is a caption:\n\n---\n\nA dog runs.\n\n---", "A dog runs."),
        ("**Caption**\n\nA dog runs.", "A dog runs."),
        ("## Image caption 1\nA dog runs.", "A dog runs."),
    ],
)
def test_only_the_caption_is_left(answer: str, caption: str) -> None:
    verdict = PreambleStripper().judge_one(CaptionRecord("a", answer))
    assert (verdict.caption, verdict.reason) == (caption, "")


@pytest.mark.parametrize(
    "caption",
    [
        "A dog runs.",
        "Sure-footed goats climb a cliff.",
        "Here is a dog on a bed.",
        "The image shows how a dog runs.",
        "A sign with the words: no dogs.",
        "Okay Corral's gate stands open.",
        "A 2 * 3 grid of 4 * 5 tiles.",
        "3 dogs run.",
    ],
)
def test_captions_without_a_preamble_stay_as_they_are(caption: str) -> None:
    assert PreambleStripper().judge_one(CaptionRecord("a", caption)).caption == caption


def test_cleaning_twice_is_cleaning_once() -> None:
    stripper = PreambleStripper()
    once = stripper.judge_one(CaptionRecord("a", 'Sure! Caption: "The image shows a **red** dog."')).caption
    assert once == "A red dog."
    assert stripper.judge_one(CaptionRecord("a", once)).caption == once


@pytest.mark.parametrize("answer", ["", "Sure, here is a caption:", "Word: dog", "***", "Caption:\n\n```\n```"])
def test_a_preamble_alone_is_rejected(answer: str) -> None:
    verdict = PreambleStripper().judge_one(CaptionRecord("a", answer))
    assert (verdict.caption, verdict.reason) == (answer, "nothing but a preamble")
    assert PreambleStripper().provenance() == {}


@pytest.mark.parametrize("answer", ["*a " * 20_000, "\n" * 60_000 + "A dog."])
def test_long_answers_of_a_model_that_repeats_itself_take_linear_time(answer: str) -> None:
    start = time.process_time()
    PreambleStripper().judge_one(CaptionRecord("a", answer))
    assert time.process_time() - start < 2  # milliseconds on an idle core; in quadratic time, a minute
