from pathlib import Path

import pytest

from synth2_lightning.filters.names import PersonalNameFilter
from synth2_lightning.types import CaptionRecord


@pytest.mark.parametrize(
    ("caption", "class_name"),
    [
        ("Emma feeds a goat.", "goat"),
        ("A goat that Michael feeds.", ""),
        ("A doll beside Chloe, on a bed.", ""),
        ("Dr. Who waves.", ""),
        ("Mrs Miggins bakes.", "pie"),
    ],
)
def test_persons_with_a_name_are_rejected(caption: str, class_name: str) -> None:
    judge = PersonalNameFilter()
    reason = judge.judge_one(CaptionRecord("a", caption, class_name)).reason
    assert reason == "names a person"


@pytest.mark.parametrize(
    ("caption", "class_name"),
    [
        ("A rose, a robin and a jack in a glen.", ""),
        ("Rose petals in May, near Austin.", ""),
        ("A bob haircut.", ""),
        ("The towers of San Antonio and Saint Michael.", ""),
        ("A Queen Anne chair.", "Queen Anne chair"),
        ("Daisies beside a black-eyed Susan.", "black-eyed Susan"),
    ],
)
def test_words_places_and_class_names_stay(caption: str, class_name: str) -> None:
    assert PersonalNameFilter().judge_one(CaptionRecord("a", caption, class_name)).reason == ""


def test_a_list_of_ones_own_may_be_given(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("# cats\nMuck  # the tomcat\n\nHiddigeigei\n", encoding="utf-8")
    judge = PersonalNameFilter(str(names))
    assert judge.judge_one(CaptionRecord("a", "Muck sleeps.")).reason == "names a person"
    assert judge.judge_one(CaptionRecord("a", "Emma sleeps.")).reason == ""
    provenance = judge.provenance()
    assert provenance["names"] == str(names)
    names.write_text("Muck\n", encoding="utf-8")
    assert PersonalNameFilter(str(names)).provenance()["fingerprint"] != provenance["fingerprint"]


def test_a_missing_list_is_refused_when_it_is_needed() -> None:
    with pytest.raises(FileNotFoundError, match=r"given names.*'/nowhere/names\.txt'"):
        PersonalNameFilter("/nowhere/names.txt").judge_one(CaptionRecord("a", "A dog."))
