"""Concurrent chat requests to an OpenAI-compatible server, with retries."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import httpx2

from synth2_lightning.generators.request_limits import Pacer, RequestLimits
from synth2_lightning.generators.server_replies import Failure, read_answer, read_refusal
from synth2_lightning.io.extras import require_extra
from synth2_lightning.io.http_limits import NOT_COMPRESSED, limit_size
from synth2_lightning.io.messages import one_line
from synth2_lightning.types import Completion

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_NO_KEY = "none"  # the client requires a key, local servers do not
_SECONDS_TO_FINISH = 5.0
_MAX_BYTES = 4 * 2**20  # 100,000 tokens of reasoning have about one MiB
# Retries, pacing and cache depend on the replies (Retry-After, finish reasons); tenacity, aiolimiter and diskcache
# would be three more dependencies.
_logger = logging.getLogger(__name__)


class ChatServer:
    """OpenAI-compatible server, used through the ``openai`` client.

    Args:
        base_url: Address, such as ``http://127.0.0.1:8000/v1``.
        limits: Concurrency, rate, timeout and retries.

    Attributes:
        num_answers: Number of answers received so far.
        num_retries: Number of retries so far.
    """

    def __init__(self, base_url: str, limits: RequestLimits) -> None:
        self.base_url = base_url
        self.limits = limits
        self.num_answers = 0
        self.num_retries = 0
        self._pacer = Pacer(limits.requests_per_minute)

    async def send_all(
        self, requests: Mapping[bytes, dict[str, Any]], key: str, keep: Callable[[bytes, Completion], None]
    ) -> Failure | None:
        """Send all requests, in any order.

        After a final failure no request is started, and requests in flight have a few seconds to finish.

        Args:
            requests: Requests by name.
            key: API key; empty for none. It is removed from messages, even if the server repeats it.
            keep: Called with name and answer of each completed request.

        Returns:
            The failure that stopped the requests, if any.
        """
        require_extra("openai", "captions")
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        waiting, stop, failures = iter(requests.items()), asyncio.Event(), list[Failure]()

        async def work(client: "AsyncOpenAI") -> None:
            for name, request in waiting:
                outcome = await self._request(client, request, key, stop)
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                    stop.set()
                if not isinstance(outcome, Completion):
                    return
                keep(name, outcome)

        # The client's retries ignore malformed answers and the other requests, and its timeout applies to single reads.
        bounded = DefaultAsyncHttpxClient(
            headers=NOT_COMPRESSED, event_hooks={"response": [limit_size(_MAX_BYTES), _read_as_json]}, timeout=None
        )
        async with AsyncOpenAI(
            api_key=key or _NO_KEY, base_url=self.base_url, timeout=None, max_retries=0, http_client=bounded
        ) as client:
            num_workers = min(self.limits.num_concurrent, len(requests))
            await _finish([asyncio.create_task(work(client)) for _ in range(num_workers)], stop)
        return failures[0] if failures else None

    async def _request(
        self, client: "AsyncOpenAI", request: dict[str, Any], key: str, stop: asyncio.Event
    ) -> Completion | Failure | None:
        """Return the answer or the final failure; ``None`` if ``stop`` was set before."""
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
            # A rate-limited request does not count as a try while the server answers others.
            num_tries += 0 if outcome.is_busy and self.num_answers > num_answers else 1
            num_answers = self.num_answers
            if outcome.advice or num_tries > self.limits.max_retries:
                return outcome
            self._log_retry(outcome)
            self._pacer.hold(outcome.retry_after)
            await _sleep(outcome.retry_after or self.limits.back_off(num_failures), stop)
        return None

    async def _send(self, client: "AsyncOpenAI", request: dict[str, Any], key: str) -> Completion | Failure:
        from openai import APIConnectionError, APIStatusError

        def quote(text: str) -> str:
            return one_line(text.replace(key, "[key]") if key else text)

        # Failures are returned, because a raised exception would chain the client's, which may contain the key.
        try:
            async with asyncio.timeout(self.limits.timeout):
                response = await client.chat.completions.with_raw_response.create(**request)
        except APIStatusError as error:
            return read_refusal(error.status_code, error.response.headers, error.response.text, quote)
        except TimeoutError:
            return Failure(reason=f"sent no complete answer within {self.limits.timeout:g} seconds")
        except (APIConnectionError, httpx2.HTTPError) as error:  # HTTPError while reading an error's body
            cause = error.__cause__ or error
            return Failure(
                reason=f"cannot be reached, or closed the connection ({type(cause).__name__}: {quote(str(cause))})"
            )
        return read_answer(response.text, quote)

    def _log_retry(self, failure: Failure) -> None:
        self.num_retries += 1
        if self.num_retries & (self.num_retries - 1) == 0:  # log at powers of two
            _logger.warning(
                "%s %s. Retrying; so far %d retries and %d answers.",
                *(self.base_url, failure.reason, self.num_retries, self.num_answers),
            )


async def _read_as_json(response: httpx2.Response) -> None:
    response.encoding = "utf-8-sig"  # ignores the declared encoding: some of Python's codecs take quadratic time


async def _finish(workers: list[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Wait for all workers; after a failure, only a few seconds, in which paid answers may still arrive."""
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
