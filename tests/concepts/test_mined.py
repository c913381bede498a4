from pathlib import Path

import pytest

from synth2_lightning.concepts.mined import MinedConcepts, find_concepts, find_nouns
from synth2_lightning.concepts.suitability import UNSUITABLE, SuitabilityList
from synth2_lightning.concepts.wordnet import read_wordnet
from synth2_lightning.sources.caption_table import CaptionTable
from synth2_lightning.types import Concept

CAPTIONS = """caption
Two dogs run after a tennis ball on the grass .
"A dog stands in front of a bicycle , looking at the dog ."
A man in red swimming trunks rides a bike through the air .
An idiot photos three dogs and a child .
A kid and another kid ride bicycles .
"""


def mine(folder: Path, min_count: int = 1) -> MinedConcepts:
    (folder / "t.csv").write_text(CAPTIONS)
    concepts = MinedConcepts(CaptionTable(str(folder / "t.csv")), min_count)
    concepts.load()
    return concepts


def test_nouns_are_counted_by_captions_the_most_frequent_first(tmp_path: Path) -> None:
    concepts = mine(tmp_path)
    found = {concept.name: int(concept.weight) for concept in map(concepts.concept, range(len(concepts)))}
    assert found == {"dog": 3, "bicycle": 2, "child": 2, "tennis ball": 1, "grass": 1, "man": 1} | {
        "swimming trunks": 1,
        "bike": 1,
    }
    assert concepts.concept(0) == Concept("n02084071", "dog", branch="animal", weight=3.0)


def test_rare_and_unsuitable_nouns_are_counted(tmp_path: Path) -> None:
    concepts = mine(tmp_path, min_count=2)
    assert [concepts.concept(index).name for index in range(len(concepts))] == ["dog", "bicycle", "child"]
    excluded = concepts.provenance()["num_excluded"]
    assert excluded["in fewer than 2 captions"] == 5
    assert excluded["location"] == 1  # "the front"


@pytest.mark.parametrize(
    ("caption", "nouns"),
    [
        ("A large white dog", ["dog"]),  # not "large white", a moth
        ("THE STREET", ["street"]),  # not "The Street" of bankers
        ("A young man eats ice cream .", ["young man", "ice cream"]),
        ("Three women on skis", ["woman", "ski"]),
        ("", []),
    ],
)
def test_terms_go_before_words(caption: str, nouns: list[str]) -> None:
    assert find_nouns(caption, read_wordnet()) == nouns


@pytest.mark.parametrize(
    ("caption", "nouns"),
    [
        ("A fiancée in a café .", ["cafe"]),  # not "e", a vitamin
        ("A piñata at 5 p.m. on a 3D table", ["pinata", "table"]),
        ("Der Fuß einer Straße", []),
        ("The dog's ball and a carpenter's hammer", ["dog", "ball", "carpenter's hammer"]),
        ("Two men\N{RIGHT SINGLE QUOTATION MARK}s bikes", ["man", "bike"]),
    ],
)
def test_nouns_are_whole_words_without_accents_and_possessive_endings(caption: str, nouns: list[str]) -> None:
    assert find_nouns(caption, read_wordnet()) == nouns


def test_concepts_of_a_caption_have_its_names() -> None:
    caption = "An idiot photos three bikes in front of a bike and a child ."
    names = [concept.name for concept in find_concepts(caption, read_wordnet())]
    assert names == ["idiot", "photo", "bike", "front", "child"]
    suitable = find_concepts(caption, read_wordnet(), SuitabilityList(UNSUITABLE))
    assert [concept.name for concept in suitable] == ["bike", "child"]
    assert suitable[0].branch == "artifact"


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'mined'.*min_count=0"):
        MinedConcepts(CaptionTable("t.csv"), min_count=0)
