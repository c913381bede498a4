"""Generator with a server that fails on demand: no answer is lost, and none is requested twice."""

import asyncio
import json
import logging
import multiprocessing
import os
import signal
import socket
import struct
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from synth2_lightning.generators.completion_cache import CompletionCache
from synth2_lightning.generators.openai import OpenAICaptionGenerator
from synth2_lightning.generators.request_limits import RequestLimits
from synth2_lightning.types import ChatMessage, Completion, Prompt

Fault = Callable[[BaseHTTPRequestHandler], None]
ANIMALS = ("dog", "cat", "owl", "eel", "ant", "bee", "cow", "elk")
KEY = "sk-proj-0123456789abcdefghij"


class _Server(ThreadingHTTPServer):
    request_queue_size = 64  # the default of five would delay the sixth connection by a second


class FakeChatServer:
    """Server that answers ``"dog"`` with ``"A dog 7."``, where 7 is the seed.

    Attributes:
        faults: Faults of the next requests, by prompt; each request removes one.
        delays: Seconds before the answer, by prompt.
        asked: Number of requests, by prompt.
        answered: Number of answers, by prompt.
        bodies: Bodies of all requests.
        headers: Headers of all requests.
        times: Times of all requests.
        peak: Maximum number of concurrent requests.
    """

    def __init__(self) -> None:
        self.faults: dict[str, list[Fault]] = {}
        self.delays: dict[str, float] = {}
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.peak = 0
        self.before_answer: Callable[[], object] = lambda: None
        self._running = 0
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                fake.handle(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> bool:
        """Stop, if running: no new connection, and no answer on an existing one."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        return server is not None

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        with self._lock:
            self.asked[prompt] += 1
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.times.append(time.monotonic())
            self._running += 1
            self.peak = max(self.peak, self._running)
            faults = self.faults.get(prompt, [])
            fault = faults.pop(0) if faults else None
        try:
            time.sleep(self.delays.get(prompt, 0.0))
            self.before_answer()
            if self._server is None:
                drop(handler)
            elif fault is not None:
                fault(handler)
            else:
                reply(handler, chat_completion(f"A {prompt} {body['seed']}."))
                with self._lock:
                    self.answered[prompt] += 1
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True
        finally:
            with self._lock:
                self._running -= 1


def chat_completion(content: str | None, finish_reason: str | None = "stop", **message: Any) -> str:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content, **message},
        "finish_reason": finish_reason,
    }
    usage = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
    return json.dumps({"id": "1", "object": "chat.completion", "created": 0, "choices": [choice], "usage": usage})


def reply(handler: BaseHTTPRequestHandler, body: str, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {
        "Content-Type": "application/json",
        "Content-Length": str(len(body.encode())),
        **headers,
    }.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body.encode())


def drop(handler: BaseHTTPRequestHandler) -> None:
    """Reset the connection, as a killed process does."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def answer_with(body: str, status: int = 200, **headers: str) -> Fault:
    return lambda handler: reply(handler, body, status, **headers)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeChatServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = FakeChatServer()
    yield server
    server.stop()


def make(server: FakeChatServer, cache: Path | None = None, **limits: Any) -> OpenAICaptionGenerator:
    limits = {"num_concurrent": 4, "max_retries": 2, "retry_delay": 0.01, "timeout": 5.0, **limits}
    folder = None if cache is None else str(cache)
    return OpenAICaptionGenerator("tiny", server.url, limits=RequestLimits(**limits), cache=folder)


def ask(generator: OpenAICaptionGenerator, names: Sequence[str] = ANIMALS, seed: int = 7) -> list[Completion]:
    prompts: list[Prompt] = [(ChatMessage("system", "Be brief."), ChatMessage("user", name)) for name in names]
    return generator.generate(prompts, [seed] * len(prompts))


def texts(names: Sequence[str] = ANIMALS, seed: int = 7) -> list[str]:
    return [f"A {name} {seed}." for name in names]


def test_answers_are_in_the_order_of_the_prompts_and_requested_at_once(server: FakeChatServer) -> None:
    server.delays = {name: 0.16 - 0.02 * row for row, name in enumerate(ANIMALS)}
    answers = ask(make(server))
    assert answers == [Completion(text, "stop", 11, 5) for text in texts()]
    assert server.peak == 4
    assert server.asked == Counter(ANIMALS)


def test_a_request_holds_all_that_decides_its_answer(server: FakeChatServer) -> None:
    generator = OpenAICaptionGenerator(
        "tiny", f"{server.url}/", max_new_tokens=9, temperature=0.5, top_p=0.9, extra_body={"top_k": 40}
    )
    ask(generator, ["dog"], seed=2**62 + 5)
    assert server.bodies == [
        {
            "model": "tiny",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "dog"}],
            "seed": 5,
            "max_completion_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 40,
        }
    ]
    assert generator.model_name == "tiny"
    assert generator.provenance() == {
        "generator": "openai:tiny",
        "base_url": server.url,
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "extra_body": {"top_k": 40},
    }


def test_what_is_left_to_the_server_is_not_sent(server: FakeChatServer) -> None:
    generator = OpenAICaptionGenerator("tiny", server.url, temperature=None)
    ask(generator, ["dog"])
    assert set(server.bodies[0]) == {"model", "messages", "seed", "max_completion_tokens"}
    assert "temperature" not in generator.provenance()


def test_the_same_prompt_and_seed_are_requested_once(server: FakeChatServer) -> None:
    assert [answer.text for answer in ask(make(server), ["dog", "cat", "dog"])] == texts(["dog", "cat", "dog"])
    assert server.asked == {"dog": 1, "cat": 1}


def test_no_prompts_have_no_answers(server: FakeChatServer) -> None:
    assert ask(make(server), []) == []


def test_repeated_requests_are_answered_by_the_cache(server: FakeChatServer, tmp_path: Path) -> None:
    first, again = make(server, tmp_path), make(server, tmp_path)
    answers = ask(first, ["dog", "cat"])
    assert ask(again, ["cat", "owl", "dog"]) == [answers[1], *ask(first, ["owl"]), answers[0]]
    assert server.asked == {"dog": 1, "cat": 1, "owl": 1}
    assert (first.num_cached, again.num_cached, again.server.num_answers) == (1, 2, 1)


@pytest.mark.parametrize("change", [{"model": "other"}, {"top_p": 0.5}, {"temperature": 0.0}, {"seed": 8}])
def test_the_cache_distinguishes_requests(server: FakeChatServer, tmp_path: Path, change: dict[str, Any]) -> None:
    ask(make(server, tmp_path), ["dog"])
    seed = change.pop("seed", 7)
    other = OpenAICaptionGenerator(**{"model": "tiny", "base_url": server.url, "cache": str(tmp_path), **change})
    ask(other, ["dog"], seed)
    assert server.asked == {"dog": 2}


TRANSIENT: dict[str, Fault] = {
    "reset": drop,
    "500": answer_with("internal error", 500),
    "503": answer_with("starting", 503, Content_Type="text/plain"),
    "429": answer_with('{"error": {"message": "slow down", "code": null}}', 429),
    "no JSON": answer_with('{"choices": [{"mess'),
    "a page": answer_with("<html>sign in</html>", Content_Type="text/html"),
    "no choices": answer_with('{"error": "overloaded"}'),
}


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_request_that_failed_is_sent_again(
    server: FakeChatServer, tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults = {"cow": [TRANSIENT[fault]] * 2}
    generator = make(server, tmp_path)
    assert [answer.text for answer in ask(generator)] == texts()
    assert server.asked == {**Counter(ANIMALS), "cow": 3}
    assert generator.server.num_retries == 2
    assert "Retrying; so far 1 retries and" in caplog.messages[0]


@pytest.mark.parametrize("fault", ["reset", "500", "429", "no JSON"])
def test_a_request_that_fails_for_good_loses_nothing(server: FakeChatServer, tmp_path: Path, fault: str) -> None:
    server.faults = {"cow": [TRANSIENT[fault]] * 3}
    # Without concurrency, because requests to a server that answers others are repeated.
    generator = make(server, tmp_path, num_concurrent=1 if fault == "429" else 4)
    with pytest.raises(ConnectionError, match=r" 3 times.*server") as error:
        ask(generator)
    with CompletionCache(tmp_path) as cache:
        num_safe = len(cache)
    assert f"{num_safe} answers are safe in the cache {tmp_path}" in str(error.value)
    assert server.answered.total() == num_safe
    assert [answer.text for answer in ask(make(server, tmp_path))] == texts()
    assert server.answered == Counter(ANIMALS)


def test_a_slow_answer_is_requested_again(server: FakeChatServer) -> None:
    server.faults = {"cow": [lambda _: time.sleep(0.3)]}
    assert ask(make(server, timeout=0.1), ["cow"])[0].text == "A cow 7."
    assert server.asked["cow"] >= 2  # more on a slow machine


def test_a_server_that_never_answers_is_named(server: FakeChatServer) -> None:
    server.delays = {"cow": 0.3}
    with pytest.raises(ConnectionError, match=r" 0\.05 seconds.* 2 times") as error:
        ask(make(server, timeout=0.05, max_retries=1), ["cow"])
    assert "The 0 answers of this batch are lost, because no cache is set." in str(error.value)


def test_no_server_at_all_is_named(server: FakeChatServer) -> None:
    server.stop()
    with pytest.raises(ConnectionError, match=r"ConnectError: .* 3 times"):
        ask(make(server))


FATAL: dict[str, tuple[Fault, type[Exception], str]] = {
    "401": (
        answer_with("who are you?", 401),
        PermissionError,
        r"401: who are you\?.*key.*not set",
    ),
    "403": (answer_with("no", 403), PermissionError, r"403: no.*key"),
    "404": (
        answer_with("no model 'tiny'", 404),
        ValueError,
        r"404: no model 'tiny'.*base_url",
    ),
    "400": (answer_with('{"detail": "bad"}', 400), ValueError, r"400: {\"detail\": \"bad\"}.*extra_body"),
    "quota": (
        answer_with('{"error": {"code": "insufficient_quota"}}', 429),
        PermissionError,
        r"quota",
    ),
    "an hour": (answer_with("later", 429, Retry_After="3600"), ConnectionError, r" 3600 seconds"),
}


@pytest.mark.parametrize("fault", FATAL)
def test_what_no_retry_mends_ends_at_once_and_loses_nothing(server: FakeChatServer, tmp_path: Path, fault: str) -> None:
    reply_badly, kind, message = FATAL[fault]
    server.faults = {"owl": [reply_badly]}
    server.delays = {"cat": 0.15}  # in flight at the failure: its answer is paid for
    with pytest.raises(kind, match=message) as error:
        ask(make(server, tmp_path, num_concurrent=3))
    assert server.asked["owl"] == 1
    assert {"dog", "cat"} <= server.answered.keys()
    assert server.asked.total() < len(ANIMALS)
    assert f"{server.answered.total()} answers are safe in the cache" in str(error.value)
    assert [answer.text for answer in ask(make(server, tmp_path))] == texts()
    assert server.answered == Counter(ANIMALS)


def test_requests_in_flight_do_not_hold_up_the_end_for_long(
    server: FakeChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synth2_lightning.generators.chat_server._SECONDS_TO_FINISH", 0.05)
    server.faults, server.delays = {"owl": [answer_with("no", 400)]}, {"cat": 1.0}
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"\b400\b"):
        ask(make(server))
    assert time.monotonic() - start < 0.7


def test_a_busy_server_gets_no_request_during_its_retry_after(server: FakeChatServer) -> None:
    server.faults = {"dog": [answer_with("slow down", 429, Retry_After="0.3")]}
    server.delays = {"cat": 0.05}
    ask(make(server, num_concurrent=2), ["dog", "cat", "owl"])
    first, last = server.times[0], server.times[2:]
    assert len(last) == 2
    assert all(moment - first >= 0.3 for moment in last)


def test_a_busy_server_that_answers_others_is_not_given_up(server: FakeChatServer) -> None:
    server.faults = {"dog": [answer_with("slow down", 429, Retry_After="0.01")] * 6}
    server.delays = dict.fromkeys(names := [*ANIMALS, "fox", "hen", "rat"], 0.04)
    assert len(ask(make(server, num_concurrent=2), names)) == 11
    assert server.asked["dog"] == 7


def test_requests_are_started_no_faster_than_the_limit(server: FakeChatServer) -> None:
    start = time.monotonic()
    ask(make(server, requests_per_minute=1200.0), ANIMALS[:5])
    assert server.times[-1] - start >= 4 * 0.05  # not times[0]: a busy machine may receive the first one late


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (chat_completion(None, "content_filter"), 200, Completion("", "content_filter", 11, 5)),
        (chat_completion(None, "stop", refusal="I cannot."), 200, Completion("I cannot.", "stop", 11, 5)),
        (chat_completion("A dog", "length"), 200, Completion("A dog", "length", 11, 5)),
        (chat_completion("A dog", None), 200, Completion("A dog", "", 11, 5)),
        ('{"choices": [{"message": {}, "finish_reason": "safety"}]}', 200, Completion("", "safety", 0, 0)),
        ('{"error": {"code": "content_filter", "message": "no"}}', 400, Completion("", "content_filter", 0, 0)),
    ],
)
def test_refusals_are_answers_and_never_none(
    server: FakeChatServer, tmp_path: Path, body: str, status: int, expected: Completion
) -> None:
    server.faults = {"dog": [answer_with(body, status)]}
    assert ask(make(server, tmp_path), ["dog"]) == [expected]
    assert ask(make(server, tmp_path), ["dog"]) == [expected]
    assert server.asked == {"dog": 1}


def test_a_server_that_ignores_the_length_is_named_once(
    server: FakeChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    generator = OpenAICaptionGenerator("tiny", server.url, max_new_tokens=4)
    ask(generator)
    ask(generator, seed=8)
    (message,) = caplog.messages
    assert "answered with 5 tokens, though max_new_tokens=4" in message
    assert "set field_names: {max_completion_tokens: max_tokens}" in message


@pytest.mark.parametrize("reply_badly", [answer_with(f"key {KEY} is wrong", 401), answer_with(f"{KEY}? " * 20, 500)])
def test_the_key_is_sent_and_shown_nowhere(
    server: FakeChatServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    reply_badly: Fault,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    server.faults = {"cow": [reply_badly] * 3}
    generator = make(server, tmp_path, num_concurrent=1)
    with caplog.at_level(logging.DEBUG):
        generator.load()
        with pytest.raises(OSError, match=r"\[key\]") as error:
            ask(generator)
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    trace = "".join(traceback.format_exception(error.value))
    assert error.value.__cause__ is None
    assert error.value.__context__ is None
    seen = [trace, str(generator.provenance()), repr(vars(generator)), repr(vars(generator.server)), caplog.text]
    files = [path.read_bytes().decode(errors="replace") for path in tmp_path.iterdir()]
    assert files
    assert not [text for text in (*seen, *files) if KEY[:12] in text]


def test_another_variable_can_contain_the_key(server: FakeChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not this one")
    monkeypatch.setenv("MY_KEY", KEY)
    ask(OpenAICaptionGenerator("tiny", server.url, api_key_variable="MY_KEY"), ["dog"])
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_a_server_of_ones_own_gets_no_key(server: FakeChatServer) -> None:
    make(server).load()
    ask(make(server), ["dog"])
    assert server.headers[0]["authorization"] == "Bearer none"


def test_openai_without_a_key_is_refused_before_any_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(PermissionError, match=r"key.*OPENAI_API_KEY"):
        OpenAICaptionGenerator("gpt").load()


def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\u201cquoted\u201d")
    with pytest.raises(ValueError, match=r"OPENAI_API_KEY.*characters") as error:
        OpenAICaptionGenerator("gpt").load()
    assert "quoted" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000/v1", "http://me:secret@host/v1", "http://host/v1?key=secret", "http://"]
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"base_url.*https") as error:
        OpenAICaptionGenerator("tiny", url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("change", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_numbers_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"max_new_tokens=.*temperature=.*top_p="):
        OpenAICaptionGenerator("tiny", "http://127.0.0.1:1/v1", **change)


def test_prompts_without_seeds_are_refused(server: FakeChatServer) -> None:
    with pytest.raises(ValueError, match=r" 0 prompts.* 1 seeds"):
        make(server).generate([], [1])


def test_a_server_that_restarts_is_waited_for(server: FakeChatServer, tmp_path: Path) -> None:
    def die_once() -> None:
        if server.answered.total() >= 3:
            server.before_answer = lambda: None
            if server.stop():
                back.start()

    server.before_answer = die_once
    back = threading.Timer(0.3, server.start)
    generator = make(server, tmp_path, num_concurrent=2, max_retries=8, retry_delay=0.05)
    assert [answer.text for answer in ask(generator)] == texts()
    assert generator.server.num_retries >= 2
    assert server.answered == Counter(ANIMALS)


def test_a_server_that_ends_loses_no_answer(server: FakeChatServer, tmp_path: Path) -> None:
    server.before_answer = lambda: server.stop() if server.answered.total() >= 3 else None
    with pytest.raises(ConnectionError, match=r"answers.*cache"):
        ask(make(server, tmp_path))
    assert 3 <= server.answered.total() < len(ANIMALS)
    server.before_answer = lambda: None
    server.start()
    assert [answer.text for answer in ask(make(server, tmp_path))] == texts()
    assert server.answered == Counter(ANIMALS)


def test_a_killed_run_resumes_from_the_cache(server: FakeChatServer, tmp_path: Path) -> None:
    server.delays = {"cow": 30.0, "elk": 30.0}
    run = multiprocessing.get_context("fork").Process(target=ask, args=(make(server, tmp_path, timeout=60.0),))
    run.start()
    assert run.pid is not None
    while len(_rows(tmp_path)) < 6:
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.join()
    server.delays = {}
    assert [answer.text for answer in ask(make(server, tmp_path))] == texts()
    assert server.asked == {**Counter(ANIMALS), "cow": 2, "elk": 2}
    assert server.answered == Counter(ANIMALS)


def _rows(folder: Path) -> range:
    with CompletionCache(folder) as cache:
        return range(len(cache))


def test_a_cache_that_breaks_ends_the_run(
    server: FakeChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr(CompletionCache, "put", fail)
    with pytest.raises(OSError, match="disk is full"):
        ask(make(server, tmp_path))
    assert server.asked.total() <= 5


def test_it_works_inside_a_running_loop(server: FakeChatServer) -> None:
    async def cell() -> list[Completion]:
        return ask(make(server), ["dog"])

    assert asyncio.run(cell())[0].text == "A dog 7."


def test_loading_logs_the_size_of_the_cache(
    server: FakeChatServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generator = make(server, tmp_path)
    ask(generator)
    with caplog.at_level(logging.INFO, "synth2_lightning"):
        generator.load()
        generator.load()
    assert caplog.messages[-1] == f"The cache {tmp_path / 'completions.sqlite3'} holds 8 answers."


def test_fields_have_the_names_of_the_server(server: FakeChatServer) -> None:
    names = {"max_completion_tokens": "max_tokens", "top_p": None}
    generator = OpenAICaptionGenerator("tiny", server.url, 9, top_p=0.5, extra_body={"top_k": 4}, field_names=names)
    ask(generator, ["dog"])
    assert set(server.bodies[0]) == {"model", "messages", "seed", "max_tokens", "temperature", "top_k"}
    assert (server.bodies[0]["max_tokens"], server.bodies[0]["top_k"]) == (9, 4)
    assert generator.provenance()["field_names"] == names


def test_captions_of_a_server_without_seeds_are_requested_one_by_one(server: FakeChatServer, tmp_path: Path) -> None:
    server.faults = {"dog": [answer_with(chat_completion(text)) for text in ("A dog.", "A hound.")]}
    generator = OpenAICaptionGenerator("tiny", server.url, field_names={"seed": None}, cache=str(tmp_path))
    prompts: list[Prompt] = [(ChatMessage("user", "dog"),)] * 2
    assert sorted(answer.text for answer in generator.generate(prompts, [1, 2])) == ["A dog.", "A hound."]
    assert all("seed" not in body for body in server.bodies)
    generator.generate(prompts, [2, 1])
    assert server.asked == {"dog": 2}


@pytest.mark.parametrize(
    ("field_names", "extra_body", "message"),
    [
        (
            {"max_tokens": "max_completion_tokens"},
            None,
            r"field_names for 'max_tokens'; expected any of seed",
        ),
        ({"messages": "prompt"}, None, r"field_names for 'messages'"),
        (
            {"max_completion_tokens": "max_tokens"},
            {"max_tokens": 4},
            r"two values for 'max_tokens'.*field_names",
        ),
        (None, {"seed": 4}, r"two values for 'seed'.*Remove it from extra_body"),
        (None, {"messages": []}, r"two values for 'messages'"),
        ({"seed": "temperature"}, None, r"two values for 'temperature'"),
    ],
)
def test_fields_with_two_values_are_refused(
    field_names: dict[str, str | None] | None, extra_body: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        OpenAICaptionGenerator("tiny", "http://127.0.0.1:1/v1", extra_body=extra_body, field_names=field_names)


@pytest.mark.parametrize(
    ("status", "body", "advice"),
    [
        (
            422,
            '{"detail": [{"loc": ["body", "max_completion_tokens"]}, {"loc": ["body", "seed"]}]}',
            r"field_names='\{seed: null, max_completion_tokens: max_tokens\}'",
        ),
        (400, '{"error": {"message": "Unrecognized request argument: seed"}}', r"field_names='\{seed: null\}'"),
        (400, '{"error": {"message": "Unsupported value: \'temperature\'"}}', r"field_names='\{temperature: null\}'"),
        (404, '{"error": {"message": "no model Seed-OSS"}}', r"Check model, base_url"),
    ],
)
def test_a_field_that_a_server_refuses_is_reported_with_its_argument(
    server: FakeChatServer, status: int, body: str, advice: str
) -> None:
    server.faults = {"dog": [answer_with(body, status)]}
    with pytest.raises(ValueError, match=advice):
        ask(make(server), ["dog"])


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_an_answer_without_content_is_reported_and_not_kept(
    server: FakeChatServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    empty = answer_with(chat_completion(content, "length", reasoning_content="Okay, so"))
    server.faults = {name: [empty] for name in ANIMALS[:3]}
    answers = ask(make(server, tmp_path))
    assert [answer.text.strip() for answer in answers[:3]] == [""] * 3
    assert "max_new_tokens=64" in caplog.messages[0]
    assert "model.init_args.generator.init_args.max_new_tokens" in caplog.messages[0]
    assert len(caplog.messages) == 1
    assert [answer.text for answer in ask(make(server, tmp_path))] == texts()
    assert server.asked == {**Counter(ANIMALS), **dict.fromkeys(ANIMALS[:3], 2)}


def test_paid_answers_are_kept_under_any_limits(server: FakeChatServer, tmp_path: Path) -> None:
    server.faults = {"dog": [answer_with(chat_completion("<think>Okay, so", "length"))]}
    answers = ask(make(server, tmp_path))
    assert answers[0].text == "<think>Okay, so"
    limits = {"num_concurrent": 1, "max_retries": 0, "timeout": 50.0, "retry_delay": 3.0, "requests_per_minute": 6000.0}
    assert ask(make(server, tmp_path, **limits)) == answers
    assert server.asked == Counter(ANIMALS)


def _limited(server: FakeChatServer, cache: Path, max_new_tokens: int, **names: str) -> OpenAICaptionGenerator:
    return OpenAICaptionGenerator("tiny", server.url, max_new_tokens, cache=str(cache), field_names={**names})


@pytest.mark.parametrize("limit", [10, 65, 8192])
def test_an_answer_that_ended_by_itself_is_not_requested_under_another_limit(
    server: FakeChatServer, tmp_path: Path, limit: int
) -> None:
    answers = ask(_limited(server, tmp_path, 64))
    assert ask(_limited(server, tmp_path, limit)) == answers
    assert ask(_limited(server, tmp_path, limit, max_completion_tokens="max_tokens")) == answers
    assert server.asked == Counter(ANIMALS)


@pytest.mark.parametrize("reason", ["length", "", "max_tokens", "MAX_TOKENS", "model_length"])
def test_an_answer_that_was_cut_counts_for_its_limit_alone(server: FakeChatServer, tmp_path: Path, reason: str) -> None:
    server.faults = {"dog": [answer_with(chat_completion("A dog runs over the", reason))]}
    cut = ask(_limited(server, tmp_path, 5))
    assert cut[0].text == "A dog runs over the"
    whole = ask(_limited(server, tmp_path, 64))
    assert [answer.text for answer in whole] == texts()
    assert ask(_limited(server, tmp_path, 5)) == cut
    assert ask(_limited(server, tmp_path, 128)) == whole
    assert server.asked == Counter([*ANIMALS, "dog"])


def test_an_answer_cached_under_its_limit_is_read(server: FakeChatServer, tmp_path: Path) -> None:
    generator = _limited(server, tmp_path, 64)
    request = generator._request((ChatMessage("user", "dog"),), 7)
    with CompletionCache(tmp_path) as cache:
        cache.put(generator._fingerprint(request, {}), Completion("An old dog.", "stop", 11, 5))
    assert generator.generate([(ChatMessage("user", "dog"),)], [7])[0].text == "An old dog."
    assert server.asked == Counter()


def test_a_longer_answer_of_the_cache_is_no_fault_of_the_server(
    server: FakeChatServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ask(_limited(server, tmp_path, 64))
    ask(_limited(server, tmp_path, 2))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_answer_that_drips_ends_with_the_timeout(server: FakeChatServer) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.05)

    server.faults = {"dog": [drip]}
    assert ask(make(server, timeout=0.5), ["dog"])[0].text == "A dog 7."
    assert server.asked == {"dog": 2}


def test_the_text_of_an_answer_is_utf_8_under_any_declared_charset(server: FakeChatServer) -> None:
    body = "\ufeff" + json.dumps(json.loads(chat_completion("Ein Hündchen.")), ensure_ascii=False)
    server.faults = {"dog": [answer_with(body, Content_Type="application/json; charset=punycode")]}
    assert ask(make(server), ["dog"])[0].text == "Ein Hündchen."
