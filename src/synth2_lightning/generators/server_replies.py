"""What a server's reply to a chat request means: an answer, or a failure that is worth another try or is not."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from synth2_lightning.jsontext import parse_json
from synth2_lightning.types import Completion

_LONGEST_HOLD = 600.0
_LONGEST_QUOTE = 300
_BUSY = 429
_MOST_TOKENS = 2**31
_WORTH_ANOTHER_TRY = (408, 409, 425, _BUSY)
_KEY_REFUSED = (401, 403)
_CUT = ("max_tokens", "model_length")  # what some gateways and Mistral call "length"
_ANSWER_PARTS = ("text", "output_text", "refusal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a request has no answer.

    Args:
        reason: What the server did, to be read after its name.
        advice: What to do about it, where no further try would help; empty where one may.
        error: What to raise in the end.
        is_busy: The server has too much to do, or we ask for too much.
        retry_after: Seconds that the server wants to be left alone; 0 where it did not say.

    Example:
        >>> Failure(reason="answered 500").advice
        ''
    """

    reason: str
    advice: str = ""
    error: type[Exception] = ConnectionError
    is_busy: bool = False
    retry_after: float = 0.0


def shorten(text: str) -> str:
    r"""Make a quote of one line, of a length that fits a message.

    Example:
        >>> shorten("no such\n  model")
        'no such model'
    """
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_QUOTE else f"{line[:_LONGEST_QUOTE]}…"


def read_answer(text: str, quote: Callable[[str], str] = shorten) -> Completion | Failure:
    """Take the answer out of a chat completion.

    Content in parts is joined, without the parts that are reasoning. Without content its text is the server's word of
    refusal, or empty; without a readable reason why it ended, that is empty; without readable counts of tokens, those
    are 0. What has no message, or ended in an error, is worth another try. Half a surrogate pair, which JSON can hold
    and no file can, becomes U+FFFD.

    Args:
        text: Body of a reply of status 200.
        quote: Makes of it what a message may show.

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
        return Failure(reason=f"answered what is no chat completion: {quote(text)}")
    finish_reason = _mend_surrogates(finish_reason) if isinstance(finish_reason, str) else ""
    if finish_reason == "error":  # OpenRouter's, where the provider behind it broke off
        return Failure(reason=f"broke off an answer: {quote(text)}")
    return Completion(_mend_surrogates(answer), "length" if finish_reason.lower() in _CUT else finish_reason, *counts)


def read_refusal(
    status: int, headers: Mapping[str, str], text: str, quote: Callable[[str], str] = shorten
) -> Completion | Failure:
    """Tell what a reply of another status means. A prompt that a content filter stopped has an empty answer.

    Args:
        status: From 300 on.
        headers: Those of the reply, in any case or in small letters.
        text: Its body.
        quote: Makes of it what a message may show.

    Example:
        >>> read_refusal(429, {"retry-after": "2"}, "slow down").retry_after
        2.0
    """
    code = _error_code(text)
    if code == "content_filter":
        return Completion("", code, 0, 0)
    reason = f"answered {status}: {quote(text)}"
    if status in _KEY_REFUSED:
        return Failure(reason=reason, advice="Look at the key and at what it may do", error=PermissionError)
    if code == "insufficient_quota":
        return Failure(reason=reason, advice="Look at the quota of the account", error=PermissionError)
    if status not in _WORTH_ANOTHER_TRY and status < 500:
        advice = "Look at model, base_url (most end in /v1), the sampling arguments and extra_body"
        return Failure(reason=reason, advice=advice, error=ValueError)
    hold = _read_retry_after(headers.get("retry-after", ""), headers.get("date", ""))
    advice = f"It wants to be left alone for {hold:.0f} seconds" if hold > _LONGEST_HOLD else ""
    return Failure(reason=reason, advice=advice, is_busy=status == _BUSY, retry_after=hold)


def _join_parts(content: Any) -> Any:
    """Join the text of the parts that are an answer: ``text``, ``output_text``, ``refusal``; others are left out."""
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
    """Return a number of tokens; 0 where it is spoiled, because the answer beside it was paid for."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return int(count) if isinstance(count, int | float) and 0 <= count < _MOST_TOKENS else 0


def _mend_surrogates(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _error_code(text: str) -> str:
    try:
        body: Any = parse_json(text)
        return str(body["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return ""


def _read_retry_after(value: str, now: str) -> float:
    """Seconds from now: servers give seconds or a date, which their own clock is held to where they tell it."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value).timestamp()
            seconds = until - (parsedate_to_datetime(now).timestamp() if now else time.time())
        except ValueError:
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
