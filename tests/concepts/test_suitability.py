import re
from pathlib import Path

import pytest

from synth2_lightning.concepts.suitability import UNSUITABLE, SuitabilityList
from synth2_lightning.concepts.wordnet import read_wordnet
from synth2_lightning.io.locations import resolve

DOG, CORGI, CAT, FIREFIGHTER = "n02084071", "n02112826", "n02121808", "n10091651"


def write(folder: Path, text: str) -> SuitabilityList:
    (folder / "rules.txt").write_text(text)
    return SuitabilityList(str(folder / "rules.txt"))


def allowed(rules: SuitabilityList) -> set[str]:
    return {synset for synset in (DOG, CORGI, CAT, FIREFIGHTER) if rules.allows(synset, read_wordnet())}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", {DOG, CORGI, CAT, FIREFIGHTER}),
        (f"below {DOG} dog", {CAT, FIREFIGHTER}),
        (f"only {DOG} dog  # too general", {CORGI, CAT, FIREFIGHTER}),
        ("branch animal\n\n# no branch person", {FIREFIGHTER}),
        (f"branch animal\nkeep {CORGI} corgi", {CORGI, FIREFIGHTER}),
        (f"below {DOG}\nkeep {CORGI}", {CORGI, CAT, FIREFIGHTER}),
    ],
)
def test_the_narrowest_rule_decides(tmp_path: Path, text: str, kept: set[str]) -> None:
    assert allowed(write(tmp_path, text)) == kept


@pytest.mark.parametrize("line", ["leave n02084071", "below", "n02084071"])
def test_lines_that_are_no_rules_are_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match=rf"rules\.txt.*line 2\b.*'{line}'"):
        write(tmp_path, f"# rules\n{line}\n")


def test_a_missing_list_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"unsuitable concepts.*'gone\.txt'"):
        SuitabilityList("gone.txt")


def test_the_list_that_ships_names_synsets_by_their_names() -> None:
    wordnet = read_wordnet()
    text = resolve(UNSUITABLE, "list").read_text()
    rules = re.findall(r"^(?:keep|only|below) (n\d{8}) (.+)$", text, re.MULTILINE)
    assert (
        len(rules)
        == len({synset for synset, _ in rules})
        == len(re.findall("^(?:keep|only|below)", text, re.MULTILINE))
    )
    assert all(synset in wordnet for synset, _ in rules)


@pytest.mark.parametrize("name", ["dog", "fire hydrant", "pizza", "oak", "surgeon", "woman", "beach", "water", "snow"])
def test_what_can_be_photographed_is_allowed(name: str) -> None:
    synset = read_wordnet().find(name)
    assert synset is not None
    assert SuitabilityList(UNSUITABLE).allows(synset, read_wordnet())


@pytest.mark.parametrize(
    "synset",
    [
        "n09643799",  # a slur
        "n10401639",  # a participant
        "n01326291",  # microorganisms
        "n03575958",  # instruments of punishment
        "n04959672",  # a color
    ],
)
def test_what_harms_or_cannot_be_seen_is_not(synset: str) -> None:
    assert not SuitabilityList(UNSUITABLE).allows(synset, read_wordnet())


@pytest.mark.parametrize(
    ("line", "message"),
    [("below n00000001", r"'n00000001'.*n02084071"), ("branch persn", r"'branch persn'.*animal.*person")],
)
def test_rules_about_nothing_are_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"rules\.txt, line 1, .*{message}"):
        write(tmp_path, line)
