"""Limits for HTTP responses: size, compression, and the targets of redirects."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any, TypeVar

import httpx2

T = TypeVar("T")
NOT_COMPRESSED = {"Accept-Encoding": "identity"}
"""Request headers for :func:`limit_size`: a compressed response may expand a thousandfold in memory."""


def limit_size(max_bytes: int) -> Callable[[httpx2.Response], Coroutine[Any, Any, None]]:
    """Return a response hook for ``httpx2.AsyncClient`` that raises on large or compressed bodies.

    It raises as soon as the limit is exceeded, also for bodies of redirects and errors. Limit the time with
    ``asyncio.timeout`` around the request: the timeouts of httpx2 apply to single reads.

    Example:
        >>> client = httpx2.AsyncClient(headers=NOT_COMPRESSED, event_hooks={"response": [limit_size(1_000_000)]})
        >>> client.headers["Accept-Encoding"]
        'identity'
    """

    async def limit(response: httpx2.Response) -> None:
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            await response.aclose()
            raise httpx2.RemoteProtocolError(
                f"it is compressed by {encoding[:40]!r}; expected the identity encoding", request=response.request
            )
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _LimitedStream(response.stream, max_bytes, response.request)

    return limit


def check_redirects(url: str) -> Callable[[httpx2.Request], Coroutine[Any, Any, None]]:
    """Return a request hook for ``httpx2.AsyncClient`` that raises on redirects from public to private hosts.

    It makes server-side request forgery harder: the owner of a public URL could otherwise reach services of this
    machine or its network. A name that resolves to another address a moment later is not detected. Loopback,
    link-local and private addresses, and names that resolve to them, are private. A private URL of the user may
    redirect to other private hosts.

    Example:
        >>> hook = check_redirects("https://example.org/a.jpg")
        >>> asyncio.run(hook(httpx2.Request("GET", "http://127.0.0.1/admin")))
        Traceback (most recent call last):
        httpx2.RemoteProtocolError: it redirects to 127.0.0.1; expected a public address
    """
    requested = httpx2.URL(url).host

    async def check(request: httpx2.Request) -> None:
        host = request.url.host
        if host != requested and await _is_private(host) and not await _is_private(requested):
            raise httpx2.RemoteProtocolError(f"it redirects to {host}; expected a public address", request=request)

    return check


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine and return its result; in a new thread if this one already runs an event loop (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


class _LimitedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int, request: httpx2.Request) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        num_bytes = 0
        async for chunk in self._stream:
            num_bytes += len(chunk)
            if num_bytes > self._max_bytes:
                raise httpx2.RemoteProtocolError(
                    f"it has more than {self._max_bytes} bytes; expected fewer", request=self._request
                )
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _is_private(host: str) -> bool:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
    except OSError:  # perhaps a proxy resolves it
        return False
    return not all(ip_address(str(address[0]).partition("%")[0]).is_global for *_, address in found)
