from pathlib import Path

import pytest

from synth2_lightning.concepts.imagenet import ImageNetConcepts
from synth2_lightning.types import Concept


def test_names_definitions_and_branches_come_along() -> None:
    concepts = ImageNetConcepts("imagenet-1k", unsuitable=None)
    concepts.load()
    assert len(concepts) == 1000
    assert concepts.name == "imagenet-1k"
    assert concepts.concept(8) == Concept("n01514859", "hen", "adult female bird", "animal")
    assert concepts.concept(417).name == "balloon"


def test_sentences_that_use_the_word_are_no_part_of_the_definition() -> None:
    concepts = ImageNetConcepts("imagenet-21k-goog", unsuitable=None)
    concepts.load()
    assert len(concepts) == 21843
    assert not any('; "' in concepts.concept(index).definition for index in range(len(concepts)))


def test_the_list_leaves_out_people_but_not_all() -> None:
    concepts = ImageNetConcepts()
    concepts.load()
    kept = [concepts.concept(index) for index in range(len(concepts))]
    names = [concept.name for concept in kept if concept.branch == "person"]
    excluded = concepts.provenance()["num_excluded"]
    assert {"surgeon", "astronaut", "skateboarder", "woman"} <= set(names)
    assert 100 < len(names) < 200
    assert excluded["person"] == 2844 - len(names)
    assert len(concepts) + sum(excluded.values()) == 21843


def test_the_list_may_be_ones_own(tmp_path: Path) -> None:
    (tmp_path / "rules.txt").write_text("branch animal\n")
    concepts = ImageNetConcepts("imagenet-1k", str(tmp_path / "rules.txt"), name="things")
    concepts.load()
    assert concepts.provenance()["num_excluded"] == {"animal": 398}
    assert concepts.provenance()["name"] == "things"


def test_a_missing_list_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"unsuitable concepts.*'gone\.txt'"):
        ImageNetConcepts("imagenet-1k", "gone.txt").load()
