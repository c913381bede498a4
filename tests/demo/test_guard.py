"""Requests to the server of the demo that its page does not make; test_page.py tests gradio itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from synth2_lightning.demo.guard import MAX_BODY_BYTES, NOT_UPLOADED, TRUSTED_HOSTS, OwnPageOnly

CALL = "/gradio_api/call/caption"
JSON = {"Content-Type": "application/json"}


async def echo(request: Request) -> Response:
    body = await request.body()
    return JSONResponse({"path": request.url.path, "size": len(body)})


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    (folder / "0a1b").mkdir(parents=True)
    (folder / "0a1b" / "fox.png").write_bytes(b"an image")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "passport.png").write_bytes(b"a secret")
    (folder / "link.png").symlink_to(tmp_path / "private" / "passport.png")
    return folder


@pytest.fixture
def client(uploads: Path) -> Iterator[TestClient]:
    guards = [
        Middleware(TrustedHostMiddleware, allowed_hosts=list(TRUSTED_HOSTS), www_redirect=False),
        Middleware(OwnPageOnly, uploads=uploads),
    ]
    application = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])], middleware=guards)
    with TestClient(application, base_url="http://127.0.0.1:7860") as opened:
        yield opened


def data(path: Any) -> dict[str, Any]:
    return {"data": [{"path": path}]}


def test_requests_of_the_page_arrive_unchanged_under_its_policy(client: TestClient, uploads: Path) -> None:
    body = data(str(uploads / "0a1b" / "fox.png")) | {"session_hash": "x", "fn_index": 0, "note": "ü" * 1000}
    answer = client.post("/gradio_api/queue/join", json=body, headers={"Origin": "http://127.0.0.1:7860"})
    assert answer.status_code == 200
    assert answer.json()["size"] == len(answer.request.content)
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert client.get("/config").status_code == client.get("/").status_code == 200
    assert client.get(f"/gradio_api/file={uploads}/0a1b/fox.png").status_code == 200
    assert client.post("/gradio_api/upload?upload_id=1", files={"files": b"an image"}).status_code == 200


OUTSIDE = {
    "a file": "{0}/private/passport.png",
    "a file that is not there": "{0}/private/nothing.png",
    "a way out of the uploads": "{0}/uploads/../private/passport.png",
    "a link out of the uploads": "{0}/uploads/link.png",
    "a folder": "{0}/uploads/0a1b",
    "an upload that is not there": "{0}/uploads/0a1b/nothing.png",
    "a path of the system": "/etc/passwd",
    "a relative path": "private/passport.png",
    "an address": "http://127.0.0.1:9/secret",
    "another protocol": "file://{0}/private/passport.png",
    "a zero byte": "{0}/uploads/0a1b/fox.png\0",
    "a path of 100,000 letters": "/" + "a" * 100_000,
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_nothing_but_uploads_is_read_and_no_answer_reveals_other_files(
    kind: str, client: TestClient, tmp_path: Path
) -> None:
    path = OUTSIDE[kind].format(tmp_path)
    wanted = {"path": path, "meta": {"_type": "gradio.FileData"}, "url": "http://evil.example/x.png"}
    bodies = [data(path), {"data": [wanted]}, {"data": [[{"deep": [{"image": wanted}]}]]}, {"data": [], **wanted}]
    answers = [client.post(CALL, json=body) for body in bodies]
    assert {answer.status_code for answer in answers} == {403}
    assert {answer.text for answer in answers} == {NOT_UPLOADED}


@pytest.mark.parametrize("kind", [kind for kind in OUTSIDE if kind not in ("a zero byte", "a path of 100,000 letters")])
def test_no_file_but_uploads_is_given_away(kind: str, client: TestClient, tmp_path: Path) -> None:
    assert client.get(f"/gradio_api/file={OUTSIDE[kind].format(tmp_path)}").status_code == 403


@pytest.mark.parametrize("path", [3, None, ["x"], {"path": "x"}, True])
def test_a_path_that_is_none_is_refused(path: Any, client: TestClient) -> None:
    assert client.post(CALL, json=data(path)).status_code == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", "[::1]"],
)
def test_only_names_of_this_machine_are_answered(host: str, client: TestClient) -> None:
    assert client.get("/config", headers={"Host": host}).status_code == 400
    assert client.post(CALL, json={"data": [None]}, headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("name", TRUSTED_HOSTS)
def test_the_page_is_answered_under_each_name_of_this_machine(name: str, client: TestClient) -> None:
    headers = {"Host": f"{name}:7860", "Origin": f"http://{name}:7860", "Sec-Fetch-Site": "same-origin"}
    assert client.post(CALL, json={"data": [None]}, headers=headers).status_code == 200
    assert client.get("/config", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8000"},  # another server of this machine
        {"Origin": "https://127.0.0.1:7860"},
        {"Origin": "http://localhost:7860"},  # the same server, under a name that the page does not use
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},  # an <img> of another page has no Origin
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
def test_requests_of_other_pages_are_refused(headers: dict[str, str], client: TestClient) -> None:
    assert client.post(CALL, json={"data": [None]}, headers=headers).status_code == 403
    assert client.post("/gradio_api/upload", files={"files": b"x"}, headers=headers).status_code == 403
    assert client.get("/gradio_api/info", headers=headers).status_code == 403


def test_a_link_to_the_page_works(client: TestClient) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=headers).status_code == 200
    assert client.post("/gradio_api/reset", json={}, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=http://169.254.169.254/latest",
        "/gradio_api/component_server",
        "/gradio_api/vibe-code",
        "/gradio_api/run-history/buckets",
        "/gradio_api/process_recording",
        "/gradio_api/stream/0/0/0/playlist.m3u8",
        "/gradio_api/custom_component/0/client/x/y",
        "/gradio_api/deep_link",
        "/monitoring/summary",
    ],
)
def test_what_the_page_does_not_need_is_not_served(path: str, client: TestClient) -> None:
    assert client.get(path).status_code == client.post(path, json={}).status_code == 404


def test_bodies_that_are_no_json_or_too_large_are_refused(client: TestClient) -> None:
    assert client.post(CALL, content=b"path=/etc/passwd").status_code == 400
    assert client.post(CALL, content=b"[" * 100_000, headers=JSON).status_code == 400
    assert client.post(CALL, content=b" " * (MAX_BODY_BYTES + 1), headers=JSON).status_code == 413
    assert client.post("/login", json={}).status_code == 404
