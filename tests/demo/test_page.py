import base64
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from PIL import Image
from rich.console import Console

from synth2_lightning.demo.command import open_demo

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDS_BROWSER = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium is installed, such as Debian's package chromium"
)


class Browser:
    """A page in headless Chromium, driven by the DevTools protocol over its pipe: messages end in a zero byte."""

    def __init__(self, profile: Path) -> None:
        assert BROWSER is not None
        reading, from_us = os.pipe()
        to_us, writing = os.pipe()
        # Chromium reads from 3 and writes to 4, whatever these pipes are called here.
        plumbing = f'exec "$0" "$@" 3<&{reading} 4>&{writing} {reading}<&- {writing}>&-'
        quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
        words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", *quiet, "--remote-debugging-pipe"]
        words += [f"--user-data-dir={profile}", "--window-size=1280,1300", "about:blank"]
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", plumbing, *words], pass_fds=(reading, writing), stderr=subprocess.DEVNULL
        )
        os.close(reading)
        os.close(writing)
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

    def wait_for(self, script: str, seconds: float = 60) -> Any:
        until = time.monotonic() + seconds
        while not (value := self.ask(script)):
            assert time.monotonic() < until, f"{script}: {self.ask('document.body.innerText')}"
            time.sleep(0.1)
        return value

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


CAPTION = "document.querySelector('.caption textarea')?.value"
PICTURES = "[...document.querySelectorAll('.%s img')].filter(each => each.complete && each.naturalWidth).length"


@NEEDS_BROWSER
def test_a_browser_shows_what_is_said_of_a_picture_and_fetches_nothing_from_elsewhere(
    run: Path, tmp_path: Path, browser: Browser
) -> None:
    with open_demo(str(run), free_port(), "cpu", Console(quiet=True)) as page:
        browser.call("Page.navigate", url=page.local_url)
        caption = browser.wait_for(CAPTION)
        browser.wait_for(f"{PICTURES % 'words'} == {len(caption.split())}")
        browser.wait_for(f"{PICTURES % 'pairs'} == 6")
        shot = base64.b64decode(browser.call("Page.captureScreenshot")["data"])
        (Path(os.environ.get("SYNTH2_SCREENSHOTS", tmp_path)) / "demo.png").write_bytes(shot)

        # A picture that is none is dropped: the page says so, and shows nothing of the one before.
        (tmp_path / "no picture.png").write_text("Not at all.")
        browser.ask(
            "document.querySelector('.picture button[aria-label*=emove], .picture button[aria-label=Clear]').click()"
        )
        browser.wait_for(f"{CAPTION} === ''")
        root = browser.call("DOM.getDocument")["root"]["nodeId"]
        browser.wait_for("document.querySelector('.picture input[type=file]') !== null")
        node = browser.call("DOM.querySelector", nodeId=root, selector=".picture input[type=file]")["nodeId"]
        browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(tmp_path / "no picture.png")])
        browser.wait_for("document.body.innerText.includes('it is a picture in no format that Pillow reads')")
        assert browser.ask(CAPTION) == ""
        assert browser.ask(PICTURES % "words") == 0

    asked = [
        event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"
    ]
    places = {urlparse(url).hostname for url in asked if not url.startswith(("data:", "blob:", "about:"))}
    assert len(asked) > 20
    assert places == {"127.0.0.1"}
    complaints = [event["params"] for event in browser.events if event["method"] == "Log.entryAdded"]
    assert [each for each in complaints if "Content Security Policy" in json.dumps(each)] == []
    assert page.share_url is None
    assert not page.analytics_enabled
    assert Image.open(Path(os.environ.get("SYNTH2_SCREENSHOTS", tmp_path)) / "demo.png").size[0] == 1280
