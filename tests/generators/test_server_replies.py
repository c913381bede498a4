import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from synth2_lightning.generators.server_replies import Failure, read_answer, read_refusal
from synth2_lightning.types import Completion


def test_an_answer_has_text_reason_and_counts() -> None:
    choice = {"message": {"content": " A dog. "}, "finish_reason": "length"}
    body = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    assert read_answer(json.dumps(body)) == Completion(" A dog. ", "length", 3, 4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"choices": null}',
        '{"choices": []}',
        '{"choices": [{"finish_reason": "stop"}]}',
        '{"choices": [{"message": "A dog."}]}',
        '{"choices": [{"message": {"content": [{"text": "A dog."}]}}]}',
    ],
)
def test_what_is_no_chat_completion_is_quoted_and_worth_another_try(text: str) -> None:
    assert read_answer(text) == Failure(reason=f"answered without a chat completion: {text}")


@pytest.mark.parametrize("count", ['"many"', "NaN", "Infinity", "-3", "1e30", "null", "[]", "{}"])
def test_an_answer_with_invalid_token_counts_is_not_paid_for_again(count: str) -> None:
    text = '{"choices": [{"message": {"content": "A dog."}, "finish_reason": 1}], "usage": {"completion_tokens": %s}}'
    expected = Completion("A dog.", "", 0, 0)
    assert read_answer(text % count) == expected
    assert read_answer(text.replace('{"completion_tokens": %s}', count)) == expected


def test_an_answer_that_ended_in_an_error_is_worth_another_try() -> None:
    outcome = read_answer('{"choices": [{"message": {"content": "A do"}, "finish_reason": "error"}]}')
    assert isinstance(outcome, Failure)
    assert outcome.reason.startswith("aborted an answer")
    assert not outcome.advice


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 529])
def test_what_may_pass_is_worth_another_try(status: int) -> None:
    failure = read_refusal(status, {}, "oops")
    assert failure == Failure(reason=f"answered {status}: oops", is_busy=status == 429)


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, ValueError), (401, PermissionError), (403, PermissionError), (404, ValueError), (422, ValueError)],
)
def test_what_stays_is_not_tried_again(status: int, error: type[Exception]) -> None:
    failure = read_refusal(status, {"retry-after": "1"}, "no")
    assert isinstance(failure, Failure)
    assert failure.error is error
    assert failure.advice


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2.5", 2.5), ("-1", 0.0), ("nan", 0.0), ("soon", 0.0), ("", 0.0),
     ("Mon, 01 Jan 2024 00:00:00 +99999999999999999", 0.0)],
)  # fmt: skip
def test_retry_after_may_be_seconds(value: str, seconds: float) -> None:
    failure = read_refusal(503, {"retry-after": value}, "")
    assert isinstance(failure, Failure)
    assert failure.retry_after == seconds
    assert not failure.advice


def test_retry_after_may_be_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    failure = read_refusal(429, {"retry-after": date}, "")
    assert isinstance(failure, Failure)
    assert 50 < failure.retry_after <= 60


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "A dog"}, {"type": "text", "text": " runs."}], "A dog runs."),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "A."}], "A."),
        ([{"type": "reasoning", "text": "Hm."}, {"type": "output_text", "text": "A."}], "A."),
        ([{"type": "thinking", "thinking": "Hm."}], ""),
        ([{"type": "text", "text": {"value": "A."}}], "A."),
        ([{"type": "refusal", "refusal": "I cannot."}], "I cannot."),
        ({"type": "text", "text": "A."}, "A."),
        (["A ", "dog."], "A dog."),
        ([], ""),
        (None, ""),
        ("half \ud83d a pair", "half \ufffd a pair"),
    ],
)
def test_the_text_of_parts_is_joined_without_reasoning(content: object, text: str) -> None:
    body = {"choices": [{"message": {"content": content, "reasoning_content": "Hm."}, "finish_reason": "stop"}]}
    assert read_answer(json.dumps(body)) == Completion(text, "stop", 0, 0)
