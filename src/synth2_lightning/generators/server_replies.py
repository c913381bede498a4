"""Parsing of chat server replies into completions, retryable failures and final failures."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from synth2_lightning.io.json_text import parse_json
from synth2_lightning.io.messages import one_line
from synth2_lightning.types import Completion

_MAX_HOLD = 600.0
_BUSY = 429
_MAX_TOKENS = 2**31
_RETRYABLE = (408, 409, 425, _BUSY)
_UNAUTHORIZED = (401, 403)
_CUT = ("max_tokens", "model_length")  # names of "length" at some gateways and Mistral
_ANSWER_PARTS = ("text", "output_text", "refusal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Failure of a request.

    Args:
        reason: What the server did; follows the server's name in messages.
        advice: What the user can do; empty if the request should be retried.
        error: Exception type to raise after the last try.
        is_busy: Whether the server reported a rate limit.
        retry_after: Seconds until the server accepts a retry; 0 if unknown.
    """

    reason: str
    advice: str = ""
    error: type[Exception] = ConnectionError
    is_busy: bool = False
    retry_after: float = 0.0


def read_answer(text: str, quote: Callable[[str], str] = one_line) -> Completion | Failure:
    """Return the completion of a reply with status 200, or a retryable failure.

    Parts of the content are joined, except reasoning. Without content, the text is the refusal message, or empty. An
    unreadable finish reason is empty, and unreadable token counts are 0. Replies without a message, or with finish
    reason ``error``, are failures. Lone surrogates, which JSON permits but UTF-8 does not, become U+FFFD.

    Args:
        text: Body of the reply.
        quote: Shortens and redacts the body for error messages.

    Example:
        >>> read_answer('{"choices": [{"message": {"content": "A dog runs."}, "finish_reason": "stop"}]}').text
        'A dog runs.'
    """
    try:
        body = parse_json(text)
        choice, usage = body["choices"][0], body.get("usage")
        answer = _join_parts(choice["message"].get("content")) or choice["message"].get("refusal") or ""
        counts = [_read_count(usage, name) for name in ("prompt_tokens", "completion_tokens")]
        finish_reason = choice.get("finish_reason")
        is_text = isinstance(answer, str)
    except (ValueError, LookupError, TypeError, AttributeError):
        is_text = False
    if not is_text:
        return Failure(reason=f"answered without a chat completion: {quote(text)}")
    finish_reason = _replace_surrogates(finish_reason) if isinstance(finish_reason, str) else ""
    if finish_reason == "error":  # OpenRouter, if its provider failed
        return Failure(reason=f"aborted an answer: {quote(text)}")
    return Completion(
        _replace_surrogates(answer), "length" if finish_reason.lower() in _CUT else finish_reason, *counts
    )


def read_refusal(
    status: int, headers: Mapping[str, str], text: str, quote: Callable[[str], str] = one_line
) -> Completion | Failure:
    """Return the failure of an unsuccessful reply, or an empty completion if a content filter rejected the prompt.

    Args:
        status: HTTP status, 300 or above.
        headers: Headers of the reply, with case-insensitive or lowercase names.
        text: Body of the reply.
        quote: Shortens and redacts the body for error messages.

    Example:
        >>> read_refusal(429, {"retry-after": "2"}, "slow down").retry_after
        2.0
    """
    code = _error_code(text)
    if code == "content_filter":
        return Completion("", code, 0, 0)
    reason = f"answered {status}: {quote(text)}"
    if status in _UNAUTHORIZED:
        return Failure(reason=reason, advice="Check the key and its permissions", error=PermissionError)
    if code == "insufficient_quota":
        return Failure(reason=reason, advice="Check the quota of the account", error=PermissionError)
    if status not in _RETRYABLE and status < 500:
        advice = "Check model, base_url (most end in /v1), the sampling arguments and extra_body"
        return Failure(reason=reason, advice=advice, error=ValueError)
    hold = _read_retry_after(headers.get("retry-after", ""), headers.get("date", ""))
    advice = f"The server accepts no request for {hold:.0f} seconds" if hold > _MAX_HOLD else ""
    return Failure(reason=reason, advice=advice, is_busy=status == _BUSY, retry_after=hold)


def _join_parts(content: Any) -> Any:
    """Join the parts of type ``text``, ``output_text`` and ``refusal``; drop others."""
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif part.get("type") in _ANSWER_PARTS:
            text = part.get("text") or part.get("refusal") or ""
            texts.append(text["value"] if isinstance(text, dict) else text)
        elif "type" not in part:
            raise TypeError("a part without a type")
    return "".join(texts)


def _read_count(usage: Any, name: str) -> int:
    """Return a token count; 0 if it is invalid, so that a paid answer is not lost."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return int(count) if isinstance(count, int | float) and 0 <= count < _MAX_TOKENS else 0


def _replace_surrogates(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _error_code(text: str) -> str:
    try:
        body: Any = parse_json(text)
        return str(body["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return ""


def _read_retry_after(value: str, now: str) -> float:
    """Return seconds from a Retry-After of seconds or a date; a date is compared with the server's clock if known."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value).timestamp()
            seconds = until - (parsedate_to_datetime(now).timestamp() if now else time.time())
        except (ValueError, OverflowError):  # a time zone of 10^14 hours
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
