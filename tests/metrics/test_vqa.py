"""Compares VQA accuracy with results of the public evaluation on answers and questions of our own.

``vqa_official.json`` was written by running vqaEval.py of GT-Vision-Lab/VQA (commit a013f00, Python 3) on them once.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from synth2_lightning.metrics.vqa import VQAAccuracy, normalize_answer, vqa_accuracy

OFFICIAL: dict[str, Any] = json.loads((Path(__file__).parent / "vqa_official.json").read_text(encoding="utf-8"))


def test_answers_are_normalized_as_in_the_public_evaluation() -> None:
    assert len(OFFICIAL["normalized"]) > 150
    assert {answer: normalize_answer(answer) for answer in OFFICIAL["normalized"]} == OFFICIAL["normalized"]


def test_accuracies_are_those_of_the_public_evaluation() -> None:
    questions = {str(number): question for number, question in enumerate(OFFICIAL["questions"])}
    result = vqa_accuracy(
        {key: question["answer"] for key, question in questions.items()},
        {key: question["people"] for key, question in questions.items()},
    )
    expected = {key: question["accuracy"] for key, question in questions.items()}
    assert result.scores == pytest.approx(expected, abs=1e-12)  # sums of floats are rounded better from Python 3.12 on
    assert {0.0, 0.6, 0.9, 1.0} < {round(accuracy, 6) for accuracy in result.scores.values()}


@pytest.mark.parametrize(("matching", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_accuracy_grows_with_the_number_of_agreeing_annotators(matching: int, accuracy: float) -> None:
    # As published: each of ten annotators is left out in turn.
    people = ["yes"] * matching + [f"other {number}" for number in range(10 - matching)]
    assert vqa_accuracy({"1": "yes"}, {"1": people}).score == pytest.approx(accuracy)


def test_answers_are_normalized_only_if_annotators_disagree() -> None:
    assert vqa_accuracy({"1": "Yes."}, {"1": ["yes"] * 10}).score == 0.0  # as in the public evaluation
    assert vqa_accuracy({"1": " yes\n"}, {"1": ["yes", "yes "] * 5}).score == 1.0
    assert vqa_accuracy({"1": "t-shirt"}, {"1": ["t-shirt"] * 10}).score == 1.0
    assert vqa_accuracy({"1": "t shirt"}, {"1": ["T-shirt."] * 9 + ["shirt"]}).score == pytest.approx(1.0)
    assert vqa_accuracy({"1": "Two"}, {"1": ["two"] * 8 + ["2", "a lot"]}).score == pytest.approx(1.0)


def test_corpus_is_the_mean_of_questions_and_metric_agrees() -> None:
    answers, people = {"b": "no", "a": "Red."}, {"a": ["red"] * 2 + ["blue"] * 8, "b": ["no"] * 10}
    result = vqa_accuracy(answers, people)
    assert result.scores == pytest.approx({"b": 1.0, "a": 0.6})
    assert result.score == pytest.approx(0.8)
    metric = VQAAccuracy()
    for key in ("b", "a", "b"):
        metric.update([key], [answers[key]], [people[key]])
    assert metric.compute().item() == pytest.approx(0.8)


def test_questions_without_reference_answers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'1'.*answers \['yes'\]"):
        vqa_accuracy({"1": "yes"}, {"1": ["yes"]})
    with pytest.raises(ValueError, match="VQA accuracy"):
        vqa_accuracy({}, {})
