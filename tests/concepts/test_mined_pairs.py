from pathlib import Path

from synth2_lightning.concepts.mined_pairs import MinedPairs
from synth2_lightning.concepts.prompts import PromptTemplate
from synth2_lightning.sources.caption_table import CaptionTable
from synth2_lightning.types import Concept

CAPTIONS = """caption
Two dogs run after a tennis ball on the grass .
A dog on the grass .
The grass hides a dog .
An idiot photos a dog .
"""


def mine(folder: Path, min_count: int = 1) -> list[Concept]:
    (folder / "t.csv").write_text(CAPTIONS)
    concepts = MinedPairs(CaptionTable(str(folder / "t.csv")), min_count)
    concepts.load()
    return [concepts.concept(index) for index in range(len(concepts))]


def test_pairs_are_counted_in_both_orders_with_the_most_frequent_names(tmp_path: Path) -> None:
    found = mine(tmp_path)
    assert {concept.name: concept.weight for concept in found} == {
        "dog + grass": 3,
        "dog + tennis ball": 1,
        "tennis ball + grass": 1,
    }
    assert found[0].name == "dog + grass"
    assert len({concept.key for concept in found}) == 3


def test_rare_pairs_are_excluded(tmp_path: Path) -> None:
    assert [concept.name for concept in mine(tmp_path, min_count=2)] == ["dog + grass"]


def test_a_pair_has_the_prompt_of_its_two_concepts(tmp_path: Path) -> None:
    template = PromptTemplate("words", 1, "{names}", num_concepts=2)
    pair, apart = mine(tmp_path)[0], [Concept("1", "dog"), Concept("2", "grass")]
    assert template.render([pair]) == template.render(apart)
