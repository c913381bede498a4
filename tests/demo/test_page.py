import base64
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from synth2_lightning.demo.answers import Answerer
from synth2_lightning.export.captioner import Captioner
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.scenes.drawing import draw_scene
from synth2_lightning.scenes.world import scene_at

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """Page in headless Chromium, controlled by the DevTools protocol over pipes; messages end with a zero byte."""

    def __init__(self, profile: Path) -> None:
        assert BROWSER is not None
        reading, from_us = os.pipe()
        to_us, writing = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4, so the pipes get descriptors from 10 on.
        for_it = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (reading, writing)]
        plumbing = f'exec "$0" "$@" 3<&{for_it[0]} 4>&{for_it[1]}'
        quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
        words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", *quiet, "--remote-debugging-pipe"]
        words += [f"--user-data-dir={profile}", "--window-size=1280,1300", "about:blank"]
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", plumbing, *words], pass_fds=for_it, stderr=subprocess.DEVNULL
        )
        for end in (reading, writing, *for_it):
            os.close(end)
        self._out, self._in = os.fdopen(from_us, "wb", buffering=0), os.fdopen(to_us, "rb")
        self.events: list[dict[str, Any]] = []
        self._number = 0
        self._session = ""
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        line = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            assert byte, "Chromium ended"
            line += byte
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait_for(self, script: str, seconds: float = 120) -> Any:
        until = time.monotonic() + seconds
        while not (value := self.ask(script)):
            assert time.monotonic() < until, f"{script}: {self.ask('document.body.innerText')}"
            time.sleep(0.1)
        return value

    def drop(self, file: Path) -> None:
        """Remove the current image, and upload another."""
        self.ask("document.querySelector('.image button[aria-label*=emove]').click()")
        self.wait_for(f"{CAPTION} === '' && document.querySelector('.image input[type=file]') !== null")
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=".image input[type=file]")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        self._out.close()
        self._in.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    opened = Browser(tmp_path / "profile")
    yield opened
    opened.close()


@pytest.fixture
def page(run: Path, tmp_path: Path) -> Iterator[str]:
    """Return the address of `synth2 demo` in its own process; the name of the run has characters to be escaped."""
    named = tmp_path / "run ${6 * 7} {{name}} <b>bold"
    shutil.copytree(run, named)
    port = free_port()
    command = [sys.executable, "-m", "synth2_lightning", "demo", str(named), "--port", str(port), "--device", "cpu"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    surroundings = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=surroundings) as server:
        assert server.stderr is not None
        lines = []
        for line in server.stderr:
            lines.append(line)
            if "http://" in line:
                break
        assert f"http://127.0.0.1:{port}/" in lines[-1], lines
        yield f"http://127.0.0.1:{port}/"
        server.send_signal(signal.SIGTERM)  # the same as Ctrl-C, which some shells do not pass to child processes
        rest = server.stderr.read()
        assert "Traceback" not in rest
        assert server.wait(timeout=60) == 0  # although an answer is still being computed
    assert list(scratch.glob("synth2-demo-*")) == []  # no uploaded image is left


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


CAPTION = "document.querySelector('.caption textarea')?.value"
NUM_IMAGES = "[...document.querySelectorAll('.{} figure img')].filter(each => each.naturalWidth).length"


def test_what_is_shown_is_escaped_and_a_bad_image_is_named(module: VisionLanguageModule, tmp_path: Path) -> None:
    from synth2_lightning.demo.page import describe  # gradio takes seconds to import

    answerer = Answerer(Captioner(module, "cpu"), None)
    draw_scene(scene_at("val", 0)).save(tmp_path / "scene.png")
    caption, words, pairs = describe(answerer, tmp_path / "scene.png", "no <shards>")
    assert words.count("<img") == len(caption.split()) > 0
    assert "no &lt;shards&gt;" in pairs
    (tmp_path / "a<b>.png").touch()
    caption, note, pairs = describe(answerer, tmp_path / "a<b>.png", "")
    assert caption == pairs == ""
    assert re.fullmatch(r'<div class="note">[^<>]*a&lt;b&gt;\.png[^<>]*UnidentifiedImageError[^<>]*</div>', note)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed, such as Debian's package chromium")
def test_a_browser_shows_the_answer_for_an_image_and_fetches_nothing_from_other_hosts(
    page: str, browser: Browser, tmp_path: Path
) -> None:
    browser.call("Page.navigate", url=page)
    caption = browser.wait_for(CAPTION)
    assert browser.ask(NUM_IMAGES.format("words")) == len(caption.split())
    assert browser.ask(NUM_IMAGES.format("pairs")) == 5
    assert "run ${6 * 7} {{name}} <b>bold" in browser.ask("document.body.innerText")
    assert browser.ask("window.gradio_config.analytics_enabled") is False
    shot = base64.b64decode(browser.call("Page.captureScreenshot")["data"])
    (Path(os.environ.get("SYNTH2_SCREENSHOTS", tmp_path)) / "demo.png").write_bytes(shot)
    assert len(Image.open(BytesIO(shot)).convert("RGB").getcolors(maxcolors=2**24) or []) > 1000  # heat maps

    # A file that is not an image is removed: the page reports it, and clears the previous results.
    (tmp_path / "notes.png").write_text("Not at all.")
    browser.drop(tmp_path / "notes.png")
    browser.wait_for(r"/notes\.png.*UnidentifiedImageError/.test(document.body.innerText)")
    assert browser.ask(CAPTION) == ""
    assert browser.ask(NUM_IMAGES.format("words")) == browser.ask(NUM_IMAGES.format("pairs")) == 0

    Image.linear_gradient("L").convert("CMYK").save(tmp_path / "print.jpg")
    browser.drop(tmp_path / "print.jpg")
    caption = browser.wait_for(CAPTION)
    assert browser.ask(NUM_IMAGES.format("words")) == len(caption.split())

    requests = [each["params"]["request"]["url"] for each in browser.events if each["method"].endswith("BeSent")]
    assert len(requests) > 20
    assert {urlsplit(url).hostname for url in requests if url.startswith(("http", "ws"))} == {"127.0.0.1"}
    complaints = [str(each["params"]) for each in browser.events if each["method"] == "Log.entryAdded"]
    assert [each for each in complaints if "Content Security Policy" in each] == []  # no request was attempted
    check_that_only_uploads_are_read(page, tmp_path / "print.jpg")


def check_that_only_uploads_are_read(page: str, image: Path) -> None:
    """Check that gradio itself, behind the guard, reads uploaded files only."""

    def post(path: str, content: bytes, kind: str = "application/json", **headers: str) -> tuple[int, Any]:
        request = Request(page + path, content, {"Content-Type": kind, **headers})
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, error.read().decode()

    def call(path: str, **more: Any) -> tuple[int, Any]:
        return post("gradio_api/call/caption", json.dumps({"data": [{"path": path, **more}]}).encode())

    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="../../%s"\r\n\r\n%s\r\n--x--\r\n'
    form %= (b"../" * 9 + b"etc/a.jpg", image.read_bytes())
    status, uploaded = post("gradio_api/upload", form, "multipart/form-data; boundary=x")
    assert status == 200
    assert "uploads" in Path(uploaded[0]).parts
    assert ".." not in Path(uploaded[0]).parts
    assert call(uploaded[0])[0] == 200
    private, gone = call(str(image)), call(str(image.with_name("gone.jpg")))
    assert private == gone == call(f"{page}config", meta={"_type": "gradio.FileData"})
    assert private[0] == 403
    assert post("gradio_api/call/caption", b"{}", Origin="http://evil.example")[0] == 403
    assert post("gradio_api/call/caption", b"{}", Host="evil.example")[0] == 400
