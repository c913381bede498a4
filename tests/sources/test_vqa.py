import json
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from synth2_lightning.sources.vqa import VQASource

QUESTIONS: list[dict[str, Any]] = [
    {"image_id": 42, "question": "How many dogs are there?", "question_id": 42000},
    {"image_id": 42, "question": "Is it sunny?", "question_id": 42001},
    {"image_id": 73, "question": " ", "question_id": 73000},
    {"image_id": 73, "question": "What is it?", "question_id": 73001},
]
ANSWERS = [
    {
        "question_type": "how many",
        "multiple_choice_answer": "2",
        "answers": [
            {"answer": a, "answer_confidence": "yes", "answer_id": n} for n, a in enumerate(["2"] * 9 + ["3"], 1)
        ],
        "image_id": key // 1000,
        "answer_type": "number",
        "question_id": key,
    }
    for key in (42000, 42001, 99000)
]


@pytest.fixture
def source(tmp_path: Path) -> VQASource:
    (tmp_path / "questions.json").write_text(json.dumps({"data_subtype": "val2014", "questions": QUESTIONS}))
    (tmp_path / "annotations.json").write_text(json.dumps({"data_subtype": "val2014", "annotations": ANSWERS}))
    Image.new("RGB", (4, 3)).save(tmp_path / "COCO_val2014_000000000042.jpg")
    return VQASource(str(tmp_path / "questions.json"), str(tmp_path / "annotations.json"), str(tmp_path))


def test_every_question_is_an_item_with_ten_answers(source: VQASource, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        source.load()
    assert [source.key(index) for index in range(len(source))] == ["42000", "42001"]
    assert [source.prompt(index) for index in range(2)] == ["How many dogs are there?", "Is it sunny?"]
    assert source.captions(0) == ("2",) * 9 + ("3",)
    assert source.image(1).size == (4, 3)
    assert "1 empty questions (the first: question_id 73000)" in caplog.text
    assert "1 questions without answers (the first: question_id 73001)" in caplog.text
    assert "1 answers to unknown questions (the first: question_id 99000)" in caplog.text


def test_other_formats_are_refused(source: VQASource) -> None:
    path = Path(source.annotations)
    path.write_text(json.dumps({"annotations": [{"question_id": 1}]}))
    with pytest.raises(ValueError, match=r"annotations.*'answers'.*VQA"):
        source.load()
    path.write_text(json.dumps({"annotations": []}))
    Path(source.questions).write_text(json.dumps({"questions": [{"question_id": 1}]}))
    with pytest.raises(ValueError, match=r"questions.*'question'.*VQA"):
        source.load()


@pytest.mark.parametrize("file_name", ["image.jpg", "{image}.jpg", "{}.jpg", "{image_id:q}.jpg"])
def test_a_file_name_without_a_place_for_the_number_is_refused(file_name: str) -> None:
    with pytest.raises(ValueError, match=r"placeholder.*image_id"):
        VQASource("questions.json", "annotations.json", "val2014", file_name)
