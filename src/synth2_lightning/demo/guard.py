"""What the server of the demo answers to: its own page on this machine, about files that were uploaded to it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from synth2_lightning.jsontext import parse_json

TRUSTED_HOSTS = ("127.0.0.1", "localhost")
"""Names by which a browser on this machine reaches the server; any other may be one that was rebound to it (DNS)."""
MAX_BODY_BYTES = 2**20
NOT_UPLOADED = "Only pictures that were uploaded to this page are read; upload the picture first."

_API = "/gradio_api/"
_FILE = f"{_API}file="
_UPLOAD = f"{_API}upload"
_NEEDED = (
    *("app_id", "api/", "call/", "cancel", "heartbeat/", "info", "queue/", "reset", "run/", "startup-events"),
    *("theme.css", "upload", "upload_progress"),
)
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; form-action 'self'"


class OwnPageOnly:
    """Middleware that refuses requests of other pages, and requests for anything but the page and its uploads.

    gradio holds the paths in a request to its upload folder only where they come with a ``meta`` field, fetches
    addresses that stand in place of a path, and offers more endpoints than the page needs. The browser is kept from
    fetching anything from elsewhere by a content security policy.

    Args:
        app: The application.
        uploads: Folder of uploaded files.

    Example:
        >>> OwnPageOnly(lambda scope, receive, send: None, Path("uploads")).is_upload("uploads/../secret.png")
        False
    """

    def __init__(self, app: ASGIApp, uploads: Path) -> None:
        self.app = app
        self.uploads = uploads.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "websocket":  # the page has none
            await send({"type": "websocket.close"})
            return
        if scope["type"] == "http":
            refusal, receive = await self._check(scope, receive)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, _with_policy(send))

    def is_upload(self, path: str) -> bool:
        """Whether a path names an uploaded file; false for all others, be they there or not."""
        try:
            found = Path(path).resolve()
            return found.is_relative_to(self.uploads) and found.is_file()
        except (OSError, ValueError, RuntimeError):  # no path at all: too long, with a zero byte, links in a circle
            return False

    async def _check(self, scope: Scope, receive: Receive) -> tuple[PlainTextResponse | None, Receive]:
        """Give the reason for a refusal, if there is one, and what the body can be received from."""
        path, method, headers = scope["path"], scope["method"], Headers(scope=scope)
        if _is_of_another_page(method, headers):
            return PlainTextResponse("Requests of other pages are refused.", 403), receive
        if path.startswith(_FILE):
            is_good = method in ("GET", "HEAD") and self.is_upload(path.removeprefix(_FILE))
            return None if is_good else PlainTextResponse(NOT_UPLOADED, 403), receive
        is_of_page = method in ("GET", "HEAD") and not path.startswith((_API, "/monitoring"))
        if not is_of_page and not path.startswith(tuple(_API + name for name in _NEEDED)):
            return PlainTextResponse("The page has no such part.", 404), receive
        if method in ("GET", "HEAD") or path.startswith(_UPLOAD):
            return None, receive
        return await self._check_body(Request(scope, receive))

    async def _check_body(self, request: Request) -> tuple[PlainTextResponse | None, Receive]:
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > MAX_BODY_BYTES:
                return PlainTextResponse(f"The request is larger than {MAX_BODY_BYTES} bytes.", 413), request.receive
        try:
            body = parse_json(bytes(content))
        except ValueError:
            return PlainTextResponse("The request is no JSON.", 400), request.receive
        if not all(isinstance(path, str) and self.is_upload(path) for path in _list_paths(body)):
            return PlainTextResponse(NOT_UPLOADED, 403), request.receive
        message = {"type": "http.request", "body": bytes(content), "more_body": False}
        return None, _replay(message, request.receive)


def _is_of_another_page(method: str, headers: Headers) -> bool:
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and origin != f"http://{headers.get('host')}":
        return True
    is_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    return site in ("cross-site", "same-site") and not is_link


def _list_paths(body: Any) -> Iterator[Any]:
    """Yield what stands under ``path`` at any depth: where gradio expects the file of an upload."""
    waiting = [body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            yield from (value for key, value in node.items() if key == "path")
        waiting += node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()


def _replay(message: Message, receive: Receive) -> Receive:
    """Give what receives a message once more, and then what comes after it."""
    waiting = [message]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


def _with_policy(send: Send) -> Send:
    async def send_with_policy(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Content-Security-Policy"] = _POLICY
        await send(message)

    return send_with_policy
