"""Servers that never finish, send too much or redirect, and models that cannot generate: refused in time, by a message.

``KINDS`` lists them; the expectations are those of ``test_bad_input.py``.
"""

import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
from drivers import VOCABULARY, read_refusal

from synth2_lightning.decoders.cross_attention import CrossAttentionDecoder
from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.generators.openai import OpenAICaptionGenerator
from synth2_lightning.generators.request_limits import RequestLimits
from synth2_lightning.io import remote, remote_filesystems, remote_ranges
from synth2_lightning.sources.image_urls import ImageFetcher
from synth2_lightning.types import ChatMessage

BERT = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
BLANKS = b" " * 2**16
Answer = Callable[[socket.socket], None]


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 10000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.05)


def drip_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Name: ")
    while True:
        connection.sendall(b"a")
        time.sleep(0.05)


def drip_error(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.05)


def say_nothing(_: socket.socket) -> None:
    time.sleep(5)


def send_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Name: " + b"a" * 4000 + b"\r\n")


def send_interim(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
        time.sleep(0.01)


def send_chunks(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + BLANKS + b"\r\n")


def send_endless_part(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + BLANKS + b"\r\n")


def send_until_closed(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n")
    while True:
        connection.sendall(BLANKS)


def send_compressed(encoding: str, connection: socket.socket) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    body = b"".join(packer.compress(BLANKS) for _ in range(256)) + packer.flush()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}"
    connection.sendall(head.encode() + b"\r\n\r\n" + body)


def lead_to(address: str, connection: socket.socket) -> None:
    connection.sendall(f"HTTP/1.1 307 Moved\r\nLocation: {address}\r\nContent-Length: 0\r\n\r\n".encode())


def serve(answer: Answer, listener: socket.socket) -> None:
    def talk(connection: socket.socket) -> None:
        with closing(connection), suppress(OSError):
            while request := connection.recv(2**16):
                if request.startswith(b"HEAD") and answer not in (
                    drip_headers,
                    send_headers,
                    say_nothing,
                    send_interim,
                ):
                    connection.sendall(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")
                else:
                    answer(connection)

    with suppress(OSError):
        while True:
            threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()


def with_server(client: Callable[[str, Path], object], answer: Answer, folder: Path) -> object:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(answer, listener), daemon=True).start()
        return client(f"http://127.0.0.1:{listener.getsockname()[1]}", folder)


def ask(address: str, _: Path) -> object:
    limits = RequestLimits(timeout=1.0, max_retries=0)
    return OpenAICaptionGenerator("m", f"{address}/v1", limits=limits).generate([(ChatMessage("user", "dog"),)], [1])


def fetch_image(address: str, _: Path) -> object:
    return ImageFetcher(max_bytes=2**20, timeout=1.0).fetch(f"{address}/forty-two.png")


def fetch_file(address: str, _: Path) -> object:
    return remote.fetch_remote(f"{address}/bad.tar", "tar")


def read_part(address: str, _: Path) -> object:
    return remote_ranges.read_range(f"{address}/bad.tar", 512, 2**21, "tar")


def match_files(address: str, _: Path) -> object:
    return remote.match_remote(f"{address}/*.tar", "tars")


def build(decoder: type[PrefixDecoder] | type[CrossAttentionDecoder], config: dict[str, Any], _: Path) -> object:
    source = NewLanguageModel(config, VOCABULARY)
    made = (
        CrossAttentionDecoder(source, cross_attn_every_n_layers=1)
        if decoder is CrossAttentionDecoder
        else decoder(source)
    )
    made.load()
    return made


CLIENTS: tuple[tuple[str, Callable[[str, Path], object], dict[str, Answer]], ...] = (
    (
        "an answer",
        ask,
        {
            "a drip": drip,
            "a drip of headers": drip_headers,
            "a drip of an error": drip_error,
            "silence": say_nothing,
            "endless headers": send_headers,
            "endless interim answers": send_interim,
            "endless chunks": send_chunks,
            "an endless body": send_until_closed,
            "a gzip bomb": partial(send_compressed, "gzip"),
            "a deflate bomb": partial(send_compressed, "deflate"),
            "what may be Brotli": partial(send_compressed, "br"),
            "a loop of redirects": partial(lead_to, "/v1/again"),
            "a redirect to a file": partial(lead_to, "file:///etc/hostname"),
        },
    ),
    (
        "an image",
        fetch_image,
        {
            "a drip": drip,
            "a drip of headers": drip_headers,
            "endless chunks": send_chunks,
            "an endless body": send_until_closed,
            "a gzip bomb": partial(send_compressed, "gzip"),
            "a loop of redirects": partial(lead_to, "/again"),
            "a redirect to a file": partial(lead_to, "file:///etc/hostname"),
        },
    ),
    (
        "a file",
        fetch_file,
        {
            "a drip": drip,
            "a drip of headers": drip_headers,
            "endless headers": send_headers,
            "endless chunks": send_chunks,
            "a gzip bomb": partial(send_compressed, "gzip"),
            "a loop of redirects": partial(lead_to, "/again"),
        },
    ),
    (
        "a part of a file",
        read_part,
        {
            "a drip of headers": drip_headers,
            "silence": say_nothing,
            "the whole file": send_until_closed,
            "an endless part": send_endless_part,
            "a gzip bomb": partial(send_compressed, "gzip"),
        },
    ),
    (
        "a pattern",
        match_files,
        {"a drip": drip, "endless chunks": send_chunks, "a deflate bomb": partial(send_compressed, "deflate")},
    ),
)

# Narrow, so that the effect of a later word on an earlier one is small.
NARROW = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
KINDS: dict[str, Callable[[Path], object]] = {
    f"{what} for {noun}": partial(with_server, client, answer)
    for noun, client, answers in CLIENTS
    for what, answer in answers.items()
}
KINDS |= {
    f"{name} as a language model": partial(build, decoder, config)
    for name, decoder, config in (
        ("BERT", PrefixDecoder, {"model_type": "bert", **BERT}),
        ("BERT with gates", CrossAttentionDecoder, {"model_type": "bert", **BERT}),
        ("RoBERTa", PrefixDecoder, {"model_type": "roberta", **BERT}),
        ("RoBERTa with is_decoder", PrefixDecoder, {"model_type": "roberta", "is_decoder": True, **BERT}),
        ("ELECTRA", PrefixDecoder, {"model_type": "electra", "embedding_size": 32, **BERT}),
        ("narrow ELECTRA", PrefixDecoder, {"model_type": "electra", "embedding_size": 16, **NARROW}),
        ("narrow BERT", PrefixDecoder, {"model_type": "bert", **NARROW}),
        ("narrow BigBird", PrefixDecoder, {"model_type": "big_bird", "attention_type": "original_full", **NARROW}),
        ("XLM", PrefixDecoder, {"model_type": "xlm", "emb_dim": 16, "n_layers": 1, "n_heads": 2}),
        ("GPT-1", PrefixDecoder, {"model_type": "openai-gpt", "n_embd": 16, "n_layer": 1, "n_head": 2}),
        ("DistilBERT", PrefixDecoder, {"model_type": "distilbert", "dim": 32, "n_layers": 1, "n_heads": 2}),
        ("T5", PrefixDecoder, {"model_type": "t5", "d_model": 32, "num_layers": 1, "num_heads": 2}),
        ("T5 with gates", CrossAttentionDecoder, {"model_type": "t5", "d_model": 32, "num_layers": 1, "num_heads": 2}),
        ("BART", PrefixDecoder, {"model_type": "bart", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1}),
        ("CLIP", PrefixDecoder, {"model_type": "clip"}),
        ("XLNet", PrefixDecoder, {"model_type": "xlnet", "d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 32}),
        ("CTRL", PrefixDecoder, {"model_type": "ctrl", "n_embd": 32, "n_layer": 1, "n_head": 2, "dff": 32}),
        ("RWKV", PrefixDecoder, {"model_type": "rwkv", "hidden_size": 32, "num_hidden_layers": 2}),
    )
}


@pytest.fixture(autouse=True)
def limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SYNTH2_CACHE", str(tmp_path / "cache"))
    for module, name, value in (
        (remote, "LIST_SECONDS", 1.0),
        (remote, "BASE_SECONDS", 1.0),
        (remote, "_MAX_SECONDS_IF_UNKNOWN", 1.0),
        (remote, "_MAX_BYTES_IF_UNKNOWN", 2**22),
        (remote_ranges, "_SECONDS_PER_TRY", 1.0),
        (remote_ranges, "_NUM_TRIES", 2),
        (remote_filesystems, "LIST_SECONDS", 1.0),
        (remote_filesystems, "_MAX_PAGE_BYTES", 2**22),
    ):
        monkeypatch.setattr(module, name, value)
    yield
    fsspec.filesystem("http").clear_instance_cache()


@pytest.mark.parametrize("kind", KINDS)
def test_refused_answers_are_named_in_a_message_in_time(kind: str, tmp_path: Path) -> None:
    start = time.monotonic()
    message = read_refusal(KINDS[kind], tmp_path)
    assert time.monotonic() - start < 120  # it takes seconds on an idle machine
    assert "127.0.0.1" in message or "decoder-only" in message, message
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 2**10]
    assert not left, "an unusable file remains on the disk"


def test_a_part_is_not_larger_than_its_range(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"the range has more than 2097152 bytes"):
        with_server(read_part, send_endless_part, tmp_path)
