"""Captions from ``transformers serve`` on loopback, which the test starts and stops."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest
import torch

from synth2_lightning.decoders.language_model import NewLanguageModel, PretrainedLanguageModel
from synth2_lightning.generators.completion_cache import CompletionCache
from synth2_lightning.generators.openai import OpenAICaptionGenerator
from synth2_lightning.generators.request_limits import RequestLimits
from synth2_lightning.types import ChatMessage, Prompt

SECONDS_TO_START = 120.0


def find_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def serving(model: Path, port: int, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a process group of its own, which is killed at the end."""
    words = ["serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", *options]
    start = [sys.executable, "-c", "from transformers.cli.transformers import main; main()"]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*start, *words],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
    try:
        wait_for(process, port, log)
        yield process
    finally:
        kill(process)


def wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return
        time.sleep(0.1)
    raise RuntimeError(f"The server did not start:\n{log.read_text()}")


def kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def make_tiny_model(folder: Path) -> None:
    """Save a Llama with random weights and the words of Scenes, which generates random words."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    source = NewLanguageModel(
        {"model_type": "llama", **sizes, "max_position_embeddings": 256}, "package://synth2_lightning/scenes/vocabulary"
    )
    torch.manual_seed(0)
    model = source.build()
    model.generation_config.do_sample = True  # otherwise decoding is greedy at any temperature
    model.save_pretrained(folder)
    source.tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    source.tokenizer.save_pretrained(folder)


@pytest.mark.slow
def test_captions_come_from_a_real_server(tmp_path: Path) -> None:
    model, port = tmp_path / "model", find_port()
    make_tiny_model(model)
    prompts: list[Prompt] = [(ChatMessage("user", word),) for word in ("a red circle", "two blue squares", "a circle")]
    url = f"http://127.0.0.1:{port}/v1"
    # Without concurrency, because this server samples all requests with one random state.
    limits = RequestLimits(num_concurrent=1, max_retries=0)
    with serving(model, port, tmp_path / "log"):
        generator = OpenAICaptionGenerator(str(model), url, 8, limits=limits, cache=str(tmp_path / "cache"))
        generator.load()
        answers = generator.generate(prompts, [1, 2, 3])
        again = OpenAICaptionGenerator(str(model), url, 8, limits=limits).generate(prompts[::-1], [3, 2, 1])
        others = generator.generate(prompts, [4, 5, 6])
        at_once = OpenAICaptionGenerator(str(model), url, 3).generate(prompts * 3, list(range(9)))
        with pytest.raises(ValueError, match=r"400: .*pinned to .*requested 'other'"):
            OpenAICaptionGenerator("other", url).generate(prompts[:1], [1])
    assert all(answer.text for answer in answers)
    assert again[::-1] == answers
    assert others != answers
    assert {answer.finish_reason for answer in [*answers, *others]} <= {"stop", "length"}
    assert all(0 < answer.num_tokens <= 8 and answer.num_prompt_tokens > 0 for answer in answers)
    assert max(answer.num_tokens for answer in at_once) == 3
    # The server has stopped; the answers come from the cache.
    assert OpenAICaptionGenerator(str(model), url, 8, limits=limits, cache=str(tmp_path / "cache")).generate(
        [*prompts, prompts[0]], [1, 2, 3, 4]
    ) == [*answers, others[0]]


FEW_SHOT = (
    ChatMessage("system", "You write one caption of a photo in plain words, of about ten words."),
    ChatMessage("user", "dog"),
    ChatMessage("assistant", "A brown dog runs over wet sand with a ball in its mouth."),
    ChatMessage("user", "kettle"),
    ChatMessage("assistant", "A steel kettle stands on a gas stove in a small kitchen."),
)
OBJECTS = ("bicycle", "lighthouse", "owl", "violin", "tractor")


@pytest.mark.slow
@pytest.mark.long
def test_a_real_server_that_is_killed_costs_no_caption(tmp_path: Path) -> None:
    model, port, cache = tmp_path / "model", find_port(), tmp_path / "cache"
    source = PretrainedLanguageModel(
        "weights://smollm2-135m-instruct", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype="bfloat16"
    )
    language_model = source.build()
    language_model.generation_config.do_sample = True
    language_model.save_pretrained(model)
    source.tokenizer.save_pretrained(model)
    prompts: list[Prompt] = [(*FEW_SHOT, ChatMessage("user", name)) for name in OBJECTS]

    def write() -> list[str]:
        generator = OpenAICaptionGenerator(
            str(model),
            f"http://127.0.0.1:{port}/v1",
            max_new_tokens=30,
            temperature=0.7,
            limits=RequestLimits(num_concurrent=1, max_retries=2, retry_delay=0.1),
            cache=str(cache),
        )
        return [answer.text for answer in generator.generate(prompts, list(range(5)))]

    with serving(model, port, tmp_path / "first", "--dtype", "bfloat16") as process:
        killer = threading.Thread(target=kill_after, args=(process, cache, 2))
        killer.start()
        with pytest.raises(ConnectionError, match=r" 3 times.* 2 answers.*cache"):
            write()
        killer.join()
    with serving(model, port, tmp_path / "second", "--dtype", "bfloat16"):
        captions = write()
    assert [count_answers(tmp_path / name) for name in ("first", "second")] == [2, 3]
    assert len(set(captions)) == 5
    assert all(len(caption.split()) >= 4 for caption in captions)


def kill_after(process: subprocess.Popen[bytes], cache: Path, num_answers: int) -> None:
    while process.poll() is None:
        with CompletionCache(cache) as answers:
            if len(answers) >= num_answers:
                kill(process)
        time.sleep(0.005)


def count_answers(log: Path) -> int:
    return log.read_text().count('"POST /v1/chat/completions HTTP/1.1" 200')
