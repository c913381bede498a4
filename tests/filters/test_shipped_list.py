"""The shipped list of filters is built from its file, and refuses or cleans typical answers."""

from jsonargparse import ArgumentParser

from synth2_lightning.cli.run_files import run_file_folder
from synth2_lightning.filters.chain import FilterChain
from synth2_lightning.interfaces import CaptionFilter
from synth2_lightning.types import CaptionRecord

ANSWERS = {
    "Sure! Here is a caption:\n\n**A goldfinch sings on a thin branch.** It is small. It is yel": "",
    "A goldfinch is a small bird native to Europe.": "ExplanationFilter",
    "A bird sings on a thin branch.": "MissingObjectFilter",
    "WRONG! A goldfinch is fine.": "RefusalFilter",
    "Ein Stieglitz (goldfinch) singt auf dem dünnen Ast.": "LanguageFilter",
    "A goldfinch sits next to a goldfinch.": "RepeatedObjectFilter",
    "Emma feeds a goldfinch in the garden.": "PersonalNameFilter",
    "a goldfinch sings on a thin branch. It is small.": "ExactDuplicates",
    "A goldfinch sings on a thin branch. It is tall.": "NearDuplicates",
    "A goldfinch.": "LengthFilter",
}


def build_filters() -> list[CaptionFilter]:
    parser = ArgumentParser()
    parser.add_argument("--filters", type=list[CaptionFilter], enable_path=True)
    values = parser.parse_args(["--filters", str(run_file_folder() / "filters" / "captions.yaml")])
    filters: list[CaptionFilter] = parser.instantiate_classes(values).filters
    return filters


def test_every_answer_is_rejected_by_the_filter_meant_for_it() -> None:
    records = [CaptionRecord(answer, answer, "goldfinch") for answer in ANSWERS]
    (kept,), rejected = FilterChain(build_filters()).judge(records)
    assert {item.record.key: item.filter_name for item in rejected} == {
        answer: name for answer, name in ANSWERS.items() if name
    }
    assert kept.caption == "A goldfinch sings on a thin branch. It is small."
