"""Sends chat requests to a server, many at a time, and again where that may help."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import httpx2

from synth2_lightning.generators.request_limits import Pacer, RequestLimits
from synth2_lightning.generators.server_replies import Failure, read_answer, read_refusal, shorten
from synth2_lightning.http_limits import NOT_COMPRESSED, limit_size
from synth2_lightning.types import Completion

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_NO_KEY = "none"  # The client insists on a key; servers of one's own ask for none.
_SECONDS_TO_FINISH = 5.0
_MOST_BYTES = 4 * 2**20  # a hundred thousand tokens of reasoning have about one
_logger = logging.getLogger(__name__)


class ChatServer:
    """A server that speaks OpenAI's chat interface, reached through the ``openai`` client.

    Args:
        base_url: Where it is, such as ``http://127.0.0.1:8000/v1``.
        limits: How hard it is pushed, and how long one waits for it.

    Attributes:
        num_answers: Answers that came so far.
        num_retries: Requests that were sent again so far.

    Example:
        >>> server = ChatServer("http://127.0.0.1:8000/v1", RequestLimits(num_concurrent=64))
        >>> asyncio.run(server.ask_all({}, "", print)) is None  # nothing is asked, nothing fails
        True
    """

    def __init__(self, base_url: str, limits: RequestLimits) -> None:
        self.base_url = base_url
        self.limits = limits
        self.num_answers = 0
        self.num_retries = 0
        self._pacer = Pacer(limits.requests_per_minute)

    async def ask_all(
        self, requests: Mapping[bytes, dict[str, Any]], key: str, keep: Callable[[bytes, Completion], None]
    ) -> Failure | None:
        """Ask for everything, in any order.

        When a request fails for good, no other is started, and those in flight get a few seconds to finish.

        Args:
            requests: What is sent, by a name for it.
            key: The server's key; empty for none. It is in no message, even if the server repeats it.
            keep: Called with name and answer, as soon as there is one.

        Returns:
            The failure that ended it early, if one did.
        """
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        waiting, stop, failures = iter(requests.items()), asyncio.Event(), list[Failure]()

        async def work(client: "AsyncOpenAI") -> None:
            for name, request in waiting:
                outcome = await self._ask(client, request, key, stop)
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                    stop.set()
                if not isinstance(outcome, Completion):
                    return
                keep(name, outcome)

        # The client's own retries are off: they know neither malformed answers nor the requests beside them. So is its
        # timeout, which is one of single reads.
        bounded = DefaultAsyncHttpxClient(
            headers=NOT_COMPRESSED, event_hooks={"response": [limit_size(_MOST_BYTES), _read_as_json]}, timeout=None
        )
        async with AsyncOpenAI(
            api_key=key or _NO_KEY, base_url=self.base_url, timeout=None, max_retries=0, http_client=bounded
        ) as client:
            num_workers = min(self.limits.num_concurrent, len(requests))
            await _finish([asyncio.create_task(work(client)) for _ in range(num_workers)], stop)
        return failures[0] if failures else None

    async def _ask(
        self, client: "AsyncOpenAI", request: dict[str, Any], key: str, stop: asyncio.Event
    ) -> Completion | Failure | None:
        """Ask until there is an answer or no hope; nothing if others have stopped before."""
        num_tries, num_answers = 0, self.num_answers
        for num_failures in count(1):
            while not stop.is_set() and (seconds := self._pacer.take_turn()) > 0:
                await _sleep(seconds, stop)
            if stop.is_set():
                break
            outcome = await self._send(client, request, key)
            if isinstance(outcome, Completion):
                self.num_answers += 1
                return outcome
            # A busy server that answers others will have time for this one, too: such a try does not count.
            num_tries += 0 if outcome.is_busy and self.num_answers > num_answers else 1
            num_answers = self.num_answers
            if outcome.advice or num_tries > self.limits.max_retries:
                return outcome
            self._tell_retry(outcome)
            self._pacer.hold(outcome.retry_after)
            await _sleep(outcome.retry_after or self.limits.back_off(num_failures), stop)
        return None

    async def _send(self, client: "AsyncOpenAI", request: dict[str, Any], key: str) -> Completion | Failure:
        from openai import APIConnectionError, APIStatusError

        def quote(text: str) -> str:
            return shorten(text.replace(key, "[key]") if key else text)

        # Failures are returned, not raised: behind an exception of ours, the client's would show what is not quoted.
        try:
            async with asyncio.timeout(self.limits.timeout):
                response = await client.chat.completions.with_raw_response.create(**request)
        except APIStatusError as error:
            return read_refusal(error.status_code, error.response.headers, error.response.text, quote)
        except TimeoutError:
            return Failure(reason=f"gave no whole answer within {self.limits.timeout:g} seconds")
        except (APIConnectionError, httpx2.HTTPError) as error:  # the latter in the body of an error
            cause = error.__cause__ or error
            return Failure(reason=f"cannot be reached, or broke off ({type(cause).__name__}: {quote(str(cause))})")
        return read_answer(response.text, quote)

    def _tell_retry(self, failure: Failure) -> None:
        self.num_retries += 1
        if self.num_retries & (self.num_retries - 1) == 0:  # the 1st, 2nd, 4th, 8th and so on: a log, not a flood
            _logger.warning(
                "%s %s. The request is sent again; so far %d retries and %d answers.",
                *(self.base_url, failure.reason, self.num_retries, self.num_answers),
            )


async def _read_as_json(response: httpx2.Response) -> None:
    response.encoding = "utf-8-sig"  # whatever it says of itself: some of Python's codecs take quadratic time


async def _finish(workers: list[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Wait until all is done, or one has failed and the others had a moment to finish: their answers may be paid."""
    if not workers:
        return
    everything, stopped = asyncio.gather(*workers), asyncio.create_task(stop.wait())
    tasks: list[asyncio.Future[Any]] = [everything, stopped, *workers]
    try:
        await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(tasks[:1], timeout=_SECONDS_TO_FINISH)
        if everything.done():
            everything.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
