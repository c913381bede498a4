from pathlib import Path

import pytest

from synth2_lightning.concepts.beginnings import CaptionBeginnings
from synth2_lightning.concepts.mined import MinedConcepts
from synth2_lightning.concepts.mined_pairs import MinedPairs
from synth2_lightning.scenes.source import ScenesSource
from synth2_lightning.sources.caption_table import CaptionTable
from synth2_lightning.sources.photo_captions import PhotoCaptions
from synth2_lightning.types import Concept

CAPTIONS = """caption
Two dogs run after a tennis ball .
two dogs run across the wide lawn
"A boy , who smiles , rides a horse ."
A dog .
"""


def test_beginnings_are_counted_the_most_frequent_first(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(CAPTIONS)
    concepts = CaptionBeginnings(CaptionTable(str(tmp_path / "t.csv")), num_words=3)
    concepts.load()
    assert [concepts.concept(index) for index in range(len(concepts))] == [
        Concept("Two dogs run", "Two dogs run", weight=2.0),
        Concept("A boy", "A boy", weight=1.0),
    ]
    assert concepts.provenance()["num_excluded"] == {"short captions": 1}


def test_no_words_are_no_beginning() -> None:
    with pytest.raises(ValueError, match=r"'beginnings'.*num_words=0"):
        CaptionBeginnings(CaptionTable("t.csv"), num_words=0)


@pytest.mark.parametrize("concepts", [CaptionBeginnings, MinedConcepts, MinedPairs])
def test_captions_of_an_evaluation_split_are_not_mined(concepts: type[CaptionBeginnings | MinedConcepts]) -> None:
    with pytest.raises(ValueError, match=r"'synthetic'.*evaluation split.*[Ee]xpected.*training split"):
        concepts(PhotoCaptions(ScenesSource("test", 5))).load()
