"""Request filter of the demo server: only requests of its own page, for uploaded files."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from synth2_lightning.io.json_text import parse_json

TRUSTED_HOSTS = ("127.0.0.1", "localhost")
"""Host names of the server for a local browser; all others are refused, against DNS rebinding."""
MAX_BODY_BYTES = 2**20
NOT_UPLOADED = "The image was not uploaded to this page. Expected an uploaded file: upload it first."

_API = "/gradio_api/"
_FILE = f"{_API}file="
_UPLOAD = f"{_API}upload"
_NEEDED = (
    *("app_id", "api/", "call/", "cancel", "heartbeat/", "info", "queue/", "reset", "run/", "startup-events"),
    *("theme.css", "upload", "upload_progress"),
)
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; form-action 'self'"


class OwnPageOnly:
    """Middleware that refuses cross-site requests, and requests for anything but the page and its uploads.

    gradio restricts paths in a request to its upload folder only if they have a ``meta`` field, downloads URLs given
    in place of a path, and has more endpoints than the page needs. A content security policy keeps the browser from
    requests to other hosts.

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
        """Pass a request to the application, or refuse it."""
        if scope["type"] == "websocket":  # unused by the page
            await send({"type": "websocket.close"})
            return
        if scope["type"] == "http":
            refusal, receive = await self._check(scope, receive)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, _with_policy(send))

    def is_upload(self, path: str) -> bool:
        """Return whether a path is an uploaded file; false for all other files, existing or not."""
        try:
            resolved = Path(path).resolve()
            return resolved.is_relative_to(self.uploads) and resolved.is_file()
        except (OSError, ValueError, RuntimeError):  # too long, a null byte, or a loop of symlinks
            return False

    async def _check(self, scope: Scope, receive: Receive) -> tuple[PlainTextResponse | None, Receive]:
        """Return the refusal, if any, and the ``receive`` for the application, since checking consumes the body."""
        path, method, headers = scope["path"], scope["method"], Headers(scope=scope)
        if _is_cross_site(method, headers):
            return PlainTextResponse("Cross-site requests are refused.", 403), receive
        if path.startswith(_FILE):
            is_allowed = method in ("GET", "HEAD") and self.is_upload(path.removeprefix(_FILE))
            return None if is_allowed else PlainTextResponse(NOT_UPLOADED, 403), receive
        is_page = method in ("GET", "HEAD") and not path.startswith((_API, "/monitoring"))
        if not is_page and not path.startswith(tuple(_API + name for name in _NEEDED)):
            return PlainTextResponse("This endpoint does not exist.", 404), receive
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
            return PlainTextResponse("The request is not JSON.", 400), request.receive
        if not all(isinstance(path, str) and self.is_upload(path) for path in _list_paths(body)):
            return PlainTextResponse(NOT_UPLOADED, 403), request.receive
        message = {"type": "http.request", "body": bytes(content), "more_body": False}
        return None, _replay(message, request.receive)


def _is_cross_site(method: str, headers: Headers) -> bool:
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and origin != f"http://{headers.get('host')}":
        return True
    is_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    return site in ("cross-site", "same-site") and not is_link


def _list_paths(body: Any) -> Iterator[Any]:
    """Yield the values of ``path`` at any depth, where gradio expects an uploaded file."""
    nodes = [body]
    while nodes:
        node = nodes.pop()
        if isinstance(node, Mapping):
            yield from (value for key, value in node.items() if key == "path")
        nodes += node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()


def _replay(message: Message, receive: Receive) -> Receive:
    """Return a ``receive`` that returns a message again, then the following ones."""
    messages = [message]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def _with_policy(send: Send) -> Send:
    async def send_with_policy(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Content-Security-Policy"] = _POLICY
        await send(message)

    return send_with_policy
