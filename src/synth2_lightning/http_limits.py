"""Bounds for the answers of HTTP servers: a size on the wire and unpacked, and where a redirect may lead."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any, TypeVar

import httpx2

T = TypeVar("T")
NOT_COMPRESSED = {"Accept-Encoding": "identity"}
"""Headers of requests whose answers are bounded: a compressed answer may be a thousand times as large in memory."""


def limit_size(max_bytes: int) -> Callable[[httpx2.Response], Coroutine[Any, Any, None]]:
    """Return a response hook for ``httpx2.AsyncClient`` that refuses answers which are too large, or compressed.

    A body is refused as soon as so many bytes of it have come, that of a redirect or an error, too. The time is
    bounded by ``asyncio.timeout`` around the whole request: the timeouts of httpx2 hold for a single read.

    Args:
        max_bytes: Most bytes of a body.

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
                f"it is compressed by {encoding[:40]!r}, though it was asked for as it is", request=response.request
            )
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _LimitedStream(response.stream, max_bytes, response.request)

    return limit


def refuse_private_redirects(url: str) -> Callable[[httpx2.Request], Coroutine[Any, Any, None]]:
    """Return a request hook for ``httpx2.AsyncClient``: no redirect leads from a public host into a private network.

    Otherwise whoever owns an address on the web could send a request from this machine to its own services, or to
    those of its network. Private are loopback, link-local and private addresses, and names of them. What is private
    may be named by the user, and lead to other private hosts.

    Args:
        url: The address that was asked for.

    Example:
        >>> hook = refuse_private_redirects("https://example.org/a.jpg")
        >>> asyncio.run(hook(httpx2.Request("GET", "http://127.0.0.1/admin")))
        Traceback (most recent call last):
        httpx2.RemoteProtocolError: it leads to 127.0.0.1, which is no public address
    """
    asked = httpx2.URL(url).host

    async def refuse(request: httpx2.Request) -> None:
        host = request.url.host
        if host != asked and await _is_private(host) and not await _is_private(asked):
            raise httpx2.RemoteProtocolError(f"it leads to {host}, which is no public address", request=request)

    return refuse


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in a thread of its own where this one has a loop, as in a notebook.

    Example:
        >>> run_async(asyncio.sleep(0, "done"))
        'done'
    """
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
                    f"it has more than the {self._max_bytes} bytes that are allowed", request=self._request
                )
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _is_private(host: str) -> bool:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
    except OSError:  # a proxy may know it
        return False
    return not all(ip_address(str(address[0]).partition("%")[0]).is_global for *_, address in found)
