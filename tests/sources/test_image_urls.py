import asyncio
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from synth2_lightning.sources.image_urls import ImageFetcher


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
        elif self.path == "/packed":
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
        elif self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/image")
        else:
            self.send_response(200 if self.path in ("/image", "/large", "/slow") else 404)
        self.end_headers()
        if self.path == "/image":
            self.wfile.write(b"image")
        elif self.path == "/large":
            self.wfile.write(b"x" * 5000)
        elif self.path == "/slow":
            self.drip()

    def drip(self) -> None:
        for _ in range(100):
            try:
                self.wfile.write(b"x")
            except OSError:
                return
            time.sleep(0.05)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/image", "/moved"])
def test_an_image_is_fetched_where_it_moved_to(server: str, path: str) -> None:
    assert ImageFetcher().fetch(server + path).read() == b"image"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/gone", "404"),
        ("/large", "more than 1000 bytes"),
        ("/slow", "longer than 1 seconds"),
        ("/packed", "it is compressed by 'gzip'"),
        ("/away", "unsupported protocol|file://"),
    ],
)
def test_what_cannot_be_fetched_is_named_with_the_reason(server: str, path: str, reason: str) -> None:
    with pytest.raises(OSError, match=rf"(?i)The image {server}{path} cannot be fetched: .*({reason})"):
        ImageFetcher(max_bytes=1000, timeout=1.0).fetch(server + path)


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:9/a\.png.*fetched"):
        ImageFetcher(timeout=1.0).fetch("http://127.0.0.1:9/a.png")


def test_limits_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"max_bytes=0.*timeout=1\.0.*0"):
        ImageFetcher(max_bytes=0, timeout=1.0)


def test_it_works_inside_a_running_loop(server: str) -> None:
    async def cell() -> bytes:
        return ImageFetcher().fetch(f"{server}/image").read()

    assert asyncio.run(cell()) == b"image"
