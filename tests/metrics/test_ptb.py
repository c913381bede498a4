"""Compares the tokenizer with Stanford's jar: with frozen answers, and with the jar itself if Java is installed.

``ptb_jar.json`` maps sentences to the tokens of pycocoevalcap. To add a sentence, map it to any string and run
``python tests/metrics/test_ptb.py``, which updates the file with the jar.
"""

import json
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from synth2_lightning.metrics.ptb import tokenize

FROZEN = Path(__file__).parent / "ptb_jar.json"
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="Stanford's jar needs java on the PATH")

# Parts of captions, including difficult ones.
PIECES = """
    a A the man's dogs' can't won't I'm they've it's red-haired T-shirt o'clock 'n' rock'n'roll y'all cannot gonna 'tis
    U.S. U.S.A. p.m. a.m. Mr. Mrs. St. Jr. Inc. etc. e.g. i.e. vs. 3 10 1/2 3/4 $5 $5.99 5% 12:30 1,000 3.5 5th 10am
    4x4 #1 '90s 1950's "quoted" 'single' \u201ccurly\u201d \u2018curly\u2019 (a) [b] -- - ... ! ? , ; : & / * # @ AT&T
    R&B www.example.com me@example.com http://example.org/a_b C++ 7-Eleven 1-2 24/7 and/or w/ :) ;-) café naïve &amp;
    <b> € £ ½ ° é ñ 日本 mid-air close-up 555-1234 no. No. fig. gimme ma'am ol' 'em
"""


def ask_jar(captions: Sequence[str]) -> list[str]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # The jar tokenizes all captions as one text; a next caption in lower case does not affect the previous one.
    corpus = {index: [{"caption": caption}, {"caption": "neighbor"}] for index, caption in enumerate(captions)}
    tokens: dict[int, list[str]] = PTBTokenizer().tokenize(corpus)
    return [tokens[index][0] for index in range(len(captions))]


def differences(captions: Sequence[str], expected: Sequence[str]) -> dict[str, tuple[str, str]]:
    ours = map(tokenize, captions)
    return {
        caption: (mine, theirs)
        for caption, mine, theirs in zip(captions, ours, expected, strict=True)
        if mine != theirs
    }


@pytest.fixture(scope="module")
def frozen() -> Mapping[str, str]:
    answers: dict[str, str] = json.loads(FROZEN.read_text(encoding="utf-8"))
    return answers


def test_equals_the_frozen_answers_of_the_jar(frozen: Mapping[str, str]) -> None:
    assert len(frozen) > 500
    assert differences(list(frozen), list(frozen.values())) == {}


@needs_java
def test_frozen_answers_equal_the_jar(frozen: Mapping[str, str]) -> None:
    assert dict(zip(frozen, ask_jar(list(frozen)), strict=True)) == dict(frozen)


@needs_java
def test_equals_the_jar_on_random_captions() -> None:
    rng = random.Random(0)
    captions = [" ".join(rng.choices(PIECES.split(), k=rng.randint(1, 10))) for _ in range(3000)]
    assert differences(captions, ask_jar(captions)) == {}


@needs_java
@pytest.mark.skipif("SYNTH2_FLICKR8K" not in os.environ, reason="SYNTH2_FLICKR8K names no folder of COCO captions")
@pytest.mark.parametrize("split", ["train", "val"])
def test_equals_the_jar_on_flickr8k(split: str) -> None:
    annotations = json.loads((Path(os.environ["SYNTH2_FLICKR8K"]) / f"captions_{split}.json").read_text())
    captions = [annotation["caption"] for annotation in annotations["annotations"]]
    assert differences(captions, ask_jar(captions)) == {}


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("", ""),
        (" \t ", ""),
        ("?!", "?!"),
        (". , ; : - -- ...", ""),
        ("one\r\ntwo\x0bthree\u2028four", "one two three four"),
        ("A dog. The cat sat.", "a dog the cat sat"),
        ("Plan B. The end.", "plan b the end"),
        ("Plan B.", "plan b."),
        ("about 1 1/2 cups", "about 1\u00a01/2 cups"),
        ("see No. 5, no. Five", "see no. 5 no five"),
        ("two 😀 faces", "two faces"),
    ],
)
def test_tokenize(caption: str, tokens: str) -> None:
    assert tokenize(caption) == tokens


@pytest.mark.parametrize("unit", ["a.", "a", "a-", "a'", ".", "-", "1,", "a@", "a/", "(", "<a ", "B. ", "&amp;", "é"])
@pytest.mark.timeout(5)
def test_repetitive_captions_are_tokenized_in_reasonable_time(unit: str) -> None:
    # An untrained decoder repeats tokens; backtracking over them must not stall validation.
    tokenize(unit * 300)


if __name__ == "__main__":
    sentences = list(json.loads(FROZEN.read_text(encoding="utf-8")))
    answers = dict(zip(sentences, ask_jar(sentences), strict=True))
    FROZEN.write_text(json.dumps(answers, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
