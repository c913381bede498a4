import asyncio
import socket
from typing import Any

import httpx2
import pytest

from synth2_lightning.io.http_limits import check_redirects, limit_size, run_async

NAMES = {"example.org": "93.184.216.34", "internal.test": "10.0.0.7", "metadata.test": "169.254.169.254"}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, *_: Any, **__: Any) -> list[Any]:
        if host.endswith(".unknown"):
            raise socket.gaierror("no such name")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (NAMES.get(host, host), 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def lead(first: str, then: str) -> None:
    asyncio.run(check_redirects(first)(httpx2.Request("GET", then)))


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:8080/admin",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://10.1.2.3/",
        "http://192.168.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://0.0.0.0/",
        "http://internal.test/",
        "http://metadata.test/",
    ],
)
def test_no_redirect_leads_from_the_web_into_a_private_network(address: str) -> None:
    with pytest.raises(httpx2.HTTPError, match="public address"):
        lead("https://example.org/a.jpg", address)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("http://127.0.0.1:80/a.jpg", "http://127.0.0.1:80/b.jpg"),
        ("http://10.0.0.7/a.jpg", "http://10.0.0.8/b.jpg"),
        ("http://10.0.0.7/a.jpg", "https://example.org/b.jpg"),
        ("https://a.unknown/a.jpg", "https://b.unknown/b.jpg"),
    ],
)
def test_other_redirects_are_followed(first: str, then: str) -> None:
    lead(first, then)


class Body(httpx2.AsyncByteStream):
    async def __aiter__(self) -> Any:
        for _ in range(4):
            yield b"x" * 100


@pytest.mark.parametrize(("most", "is_read"), [(400, True), (399, False), (1, False)])
def test_a_body_has_a_size(most: int, is_read: bool) -> None:
    async def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, stream=Body())

    async def read() -> bytes:
        hooks = {"response": [limit_size(most)]}
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer), event_hooks=hooks) as client:
            return (await client.get("http://a.b")).content

    if is_read:
        assert run_async(read()) == b"x" * 400
    else:
        with pytest.raises(httpx2.HTTPError, match=rf"\b{most} bytes"):
            run_async(read())


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip"])
def test_what_is_compressed_is_refused(encoding: str) -> None:
    response = httpx2.Response(
        200, headers={"Content-Encoding": encoding}, stream=Body(), request=httpx2.Request("GET", "http://a.b")
    )
    with pytest.raises(httpx2.HTTPError, match=f"compress.*'{encoding}'"):
        run_async(limit_size(1000)(response))
