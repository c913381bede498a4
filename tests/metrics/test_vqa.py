import pytest

from synth2_lightning.metrics.vqa import VqaAccuracy, normalize_answer, vqa_accuracy


@pytest.mark.parametrize(("matching", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_accuracy_grows_with_the_people_who_agree(matching: int, accuracy: float) -> None:
    # The table that papers print: each of ten left out in turn, nine asked whether three of them agree.
    people = ["yes"] * matching + [f"other {number}" for number in range(10 - matching)]
    assert vqa_accuracy({"1": "yes"}, {"1": people}).accuracy == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("answer", "normalized"),
    [
        ("Yes", "yes"),
        ("The Dog.", "dog"),
        ("a  red\tball\n", "red ball"),
        ("two", "2"),
        ("None", "0"),
        ("eleven", "eleven"),
        ("dont know", "don't know"),
        ("isnt", "isn't"),
        ("couldnt've", "couldn't've"),
        ("lets", "lets"),  # not among the words that get their apostrophe back
        ("man's", "man's"),
        ("t-shirt", "t shirt"),
        ("black/white", "black white"),
        ("yes, it is", "yes it is"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("10 a.m.", "10 am"),
        ("(red)", "red"),
        ("10:30", "10:30"),
        ("50%", "50%"),
    ],
)
def test_answers_are_normalised(answer: str, normalized: str) -> None:
    assert normalize_answer(answer) == normalized


def test_answers_of_people_lose_punctuation_only_where_they_differ() -> None:
    assert vqa_accuracy({"1": "t-shirt"}, {"1": ["t-shirt"] * 9 + ["shirt"]}).accuracy == pytest.approx(1.0)
    assert vqa_accuracy({"1": "t-shirt"}, {"1": ["t-shirt"] * 10}).accuracy == 0.0  # so does the public evaluation
    assert vqa_accuracy({"1": "Two"}, {"1": ["two"] * 9 + ["2"]}).accuracy == pytest.approx(0.3)


def test_corpus_is_the_mean_of_questions_and_metric_agrees() -> None:
    answers, people = {"b": "no", "a": "Red."}, {"a": ["red"] * 2 + ["blue"] * 8, "b": ["no"] * 10}
    result = vqa_accuracy(answers, people)
    assert result.accuracies == pytest.approx({"b": 1.0, "a": 0.6})
    assert result.accuracy == pytest.approx(0.8)
    metric = VqaAccuracy()
    for key in ("b", "a", "b"):
        metric.update([key], [answers[key]], [people[key]])
    assert metric.compute().item() == pytest.approx(0.8)


def test_questions_without_people_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Question '1' has the answers \['yes'\]; expected a sequence of at least tw"):
        vqa_accuracy({"1": "yes"}, {"1": ["yes"]})
    with pytest.raises(ValueError, match="VQA accuracy was asked for over no question at all"):
        vqa_accuracy({}, {})
