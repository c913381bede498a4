"""Captions by any server that speaks OpenAI's chat interface: vLLM, llama.cpp, SGLang, transformers serve, hosted."""

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from synth2_lightning.generators.chat_server import ChatServer
from synth2_lightning.generators.completion_cache import CompletionCache
from synth2_lightning.generators.request_limits import RequestLimits
from synth2_lightning.generators.server_replies import Failure
from synth2_lightning.http_limits import run_async
from synth2_lightning.interfaces import CaptionGenerator
from synth2_lightning.types import Completion, Prompt

_HOSTED = "https://api.openai.com/v1"
_SEED_BITS = 31  # llama.cpp reads 32 bits, Gemini 31 and a sign.
_LENGTH = "max_completion_tokens"
_FIELDS = ("seed", _LENGTH, "temperature", "top_p")
_ENDS = ("stop", "length", "")
_logger = logging.getLogger(__name__)


class OpenAICaptionGenerator(CaptionGenerator):
    """A language model behind a server, asked for many captions at a time, in chat completions.

    The key is read from the environment for each batch, and is neither kept nor written anywhere. All that an answer
    depends on is sent along, the lowest 31 bits of the seed included; whether a server answers the same request alike
    twice is its own affair. The cache does.

    The length goes as ``max_completion_tokens``: OpenAI's newer models insist on it, and vLLM, SGLang, transformers
    serve, Gemini and llama.cpp (since February 2026) know it. Where a server calls a field otherwise, or refuses it,
    ``field_names`` says so: ``{max_completion_tokens: max_tokens, seed: random_seed}`` for Mistral's.

    Answers are stored as they came; :class:`~synth2_lightning.filters.answers.AnswerFilter` reads the captions out of
    them. An empty answer is not kept in the cache. An answer that ended by itself is taken from the cache whatever
    ``max_new_tokens`` is; one that was cut, for the same ``max_new_tokens`` only.

    Args:
        model: Name of the model, as the server calls it.
        base_url: Where the server is, such as ``http://127.0.0.1:8000/v1``; OpenAI's own by default. Without user name
            or query, because run files and caption sets show it.
        max_new_tokens: Most tokens of an answer; those that a model thinks with count.
        temperature: Of the sampling; 0 takes the likeliest token, ``None`` leaves it to the server, for models that
            refuse it.
        top_p: Tokens are drawn from the likeliest that have so much of the probability; ``None`` leaves it to the
            server.
        extra_body: What else goes into every request, such as ``{"reasoning_effort": "none"}`` for hosted models, or
            ``{"chat_template_kwargs": {"enable_thinking": False}}`` for vLLM.
        field_names: What the server calls ``seed``, ``max_completion_tokens``, ``temperature`` and ``top_p``, where it
            is another name; ``null`` leaves a field out.
        limits: How hard the server is pushed, and how long one waits for it.
        cache: Folder that keeps each answer as it comes, on a disk of this machine. A run that goes on takes from it
            what was answered; without it, what was answered in an unfinished batch is lost.
        api_key_variable: Environment variable of the key. Where it is not set, a server of one's own gets none.

    Attributes:
        server: The server, with its counts of answers and retries.
        num_cached: Answers that came from the cache so far.

    Raises:
        ValueError: If a number is out of its range, ``base_url`` is no plain address, or a field has two values.

    Example:
        >>> generator = OpenAICaptionGenerator("qwen3-8b", "http://127.0.0.1:8000/v1", cache="answers")
        >>> generator.provenance()["base_url"]  # nothing is asked yet
        'http://127.0.0.1:8000/v1'
    """

    def __init__(
        self,
        model: str,
        base_url: str = _HOSTED,
        max_new_tokens: int = 64,
        temperature: float | None = 1.0,
        top_p: float | None = None,
        extra_body: dict[str, Any] | None = None,
        field_names: dict[str, str | None] | None = None,
        limits: RequestLimits = RequestLimits(),  # noqa: B008 - frozen, and read by the command line
        cache: str | None = None,
        api_key_variable: str = "OPENAI_API_KEY",
    ) -> None:
        super().__init__()
        if max_new_tokens < 1 or (temperature or 0.0) < 0 or not 0 < (1.0 if top_p is None else top_p) <= 1:
            raise ValueError(
                f"OpenAICaptionGenerator was given max_new_tokens={max_new_tokens}, temperature={temperature} and "
                f"top_p={top_p}; expected 1 or more tokens, a temperature of 0 or more, and top_p above 0 and up to 1."
            )
        _check_address(base_url)
        sampling: dict[str, Any] = {_LENGTH: max_new_tokens, "temperature": temperature, "top_p": top_p}
        self._sampling = {name: value for name, value in sampling.items() if value is not None}
        _check_fields(field_names or {}, ["seed", *self._sampling], extra_body or {})
        self.model_name = model
        self.server = ChatServer(base_url.rstrip("/"), limits)
        self.extra_body = extra_body
        self.max_new_tokens = max_new_tokens
        self.field_names = field_names or {}
        self.cache = cache
        self.api_key_variable = api_key_variable
        self._told_length = False
        self._num_empty = 0
        self.num_cached = 0

    def load(self) -> None:
        """Look for the key and into the cache. The server is asked by the first request, not before.

        Raises:
            OSError: If the cache cannot be opened.
            PermissionError: If OpenAI's own server is asked without a key.
            ValueError: If the key cannot be one, or the cache is damaged.
        """
        self._read_key()
        if self.cache is not None:
            with CompletionCache(self.cache) as cache:
                _logger.info("The cache %s holds %d answers.", cache.path, len(cache))

    def provenance(self) -> dict[str, Any]:
        """Give what decides the answers besides prompt and seed, without the key."""
        return {
            "generator": f"openai:{self.model_name}",
            "base_url": self.server.base_url,
            **self._sampling,
            "extra_body": self.extra_body or {},
            **({"field_names": self.field_names} if self.field_names else {}),
        }

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Completion]:
        """Answer each prompt, in their order, from the cache or by the server.

        Whatever fails, every answer that came is in the cache.

        Raises:
            ConnectionError: If a request found no answer, however often it was sent.
            OSError: If the cache cannot be used.
            PermissionError: If the server refuses the key, or the account is used up.
            ValueError: If there are not as many seeds as prompts, the server refuses a request for what is in it, or
                the cache is damaged.
        """
        if len(prompts) != len(seeds):
            raise ValueError(
                f"OpenAICaptionGenerator was given {len(prompts)} prompts and {len(seeds)} seeds; expected one seed "
                "per prompt."
            )
        requests = [self._request(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        fingerprints = [self._fingerprint(request, self.field_names) for request in requests]
        answers: dict[bytes, Completion] = {}
        # Records of the same prompt and seed have the same answer, which is asked for once.
        failure = run_async(self._answer(dict(zip(fingerprints, requests, strict=True)), answers))
        if failure is not None:
            raise failure.error(self._explain(failure, len(answers)))
        completions = [answers[fingerprint] for fingerprint in fingerprints]
        self._check_empty(completions)
        return completions

    def _request(self, prompt: Prompt, seed: int) -> dict[str, Any]:
        messages = [{"role": message.role, "content": message.content} for message in prompt]
        request = {"model": self.model_name, "messages": messages, "seed": seed % 2**_SEED_BITS, **self._sampling}
        return request if self.extra_body is None else {**request, "extra_body": self.extra_body}

    def _rename(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Give the fields the server's names. The client takes unknown ones as ``extra_body`` only."""
        kept = {name: value for name, value in request.items() if name not in self.field_names}
        renamed = {name: request[own] for own, name in self.field_names.items() if name is not None and own in request}
        return {**kept, "extra_body": {**kept.get("extra_body", {}), **renamed}} if self.field_names else kept

    def _fingerprint(self, request: Mapping[str, Any], field_names: Mapping[str, str | None]) -> bytes:
        # The address is part of it: servers of one's own call different models by the same name. So is a seed that is
        # not sent: several captions of one prompt are several answers.
        names = [field_names] if field_names else []
        return sha256(json.dumps([self.server.base_url, request, *names], sort_keys=True).encode()).digest()

    def _fingerprint_without_limit(self, request: Mapping[str, Any]) -> bytes:
        """Return the cache's key of an answer that ended by itself: it is the answer under other limits, too."""
        unlimited = {name: value for name, value in request.items() if name != _LENGTH}
        return self._fingerprint(unlimited, {own: name for own, name in self.field_names.items() if own != _LENGTH})

    def _read_key(self) -> str:
        key = os.environ.get(self.api_key_variable, "").strip()
        if not key and self.server.base_url == _HOSTED:
            raise PermissionError(
                f"{_HOSTED} asks for a key, and the environment variable {self.api_key_variable} is not set. Set it to "
                "the key, name the variable that holds it as api_key_variable, or name another server as base_url."
            )
        if not (key.isascii() and key.isprintable()):
            raise ValueError(
                f"The environment variable {self.api_key_variable} holds characters that no key has. Expected letters, "
                "digits and signs of ASCII in one line; copy the key anew."
            )
        return key

    async def _answer(
        self, requests: Mapping[bytes, dict[str, Any]], answers: dict[bytes, Completion]
    ) -> Failure | None:
        """Fill in the answers; give the failure that ended it early."""
        key = self._read_key()
        sent = {fingerprint: self._rename(request) for fingerprint, request in requests.items()}

        def keep(fingerprint: bytes, answer: Completion) -> None:
            self._check_length(answer)
            answers[fingerprint] = answer

        if self.cache is None:
            return await self.server.ask_all(sent, key, keep)
        unlimited = {each: self._fingerprint_without_limit(request) for each, request in requests.items()}
        with CompletionCache(self.cache) as cache:

            def keep_on_disk(fingerprint: bytes, answer: Completion) -> None:
                if answer.text.strip() or answer.finish_reason not in _ENDS:
                    may_be_cut = answer.finish_reason in ("length", "")
                    cache.put(fingerprint if may_be_cut else unlimited[fingerprint], answer)
                keep(fingerprint, answer)

            known = {each: cache.get(each) or cache.get(unlimited[each]) for each in requests}
            answers.update({fingerprint: answer for fingerprint, answer in known.items() if answer is not None})
            self.num_cached += len(answers)
            unknown = {fingerprint: request for fingerprint, request in sent.items() if fingerprint not in answers}
            return await self.server.ask_all(unknown, key, keep_on_disk)

    def _check_length(self, answer: Completion) -> None:
        limit = self.max_new_tokens
        if answer.num_tokens > limit and not self._told_length:
            self._told_length = True
            name = self.field_names.get(_LENGTH, _LENGTH)
            _logger.warning(
                "%s answered with %d tokens, though max_new_tokens=%d: %s. If it knows max_tokens, set field_names: "
                "{max_completion_tokens: max_tokens}.",
                *(self.server.base_url, answer.num_tokens, limit),
                f"it seems not to know {name}" if name else "field_names leaves the limit out",
            )

    def _check_empty(self, completions: Sequence[Completion]) -> None:
        num_empty = sum(not each.text.strip() and each.finish_reason == "length" for each in completions)
        if (self._num_empty + num_empty).bit_length() > self._num_empty.bit_length():  # a log, not a flood
            _logger.warning(
                "%s answered without content at the limit of max_new_tokens=%d, so far %d times: the model spent all "
                "tokens on reasoning. Raise model.init_args.generator.init_args.max_new_tokens, or turn reasoning off "
                "by extra_body ({chat_template_kwargs: {enable_thinking: false}} or {reasoning_effort: none}). Such "
                "answers are not kept in the cache.",
                *(self.server.base_url, self.max_new_tokens, self._num_empty + num_empty),
            )
        self._num_empty += num_empty

    def _name_refused_fields(self, failure: Failure) -> str:
        """Say which argument helps against a server that refuses a field; empty where it is no matter of fields."""
        sent = {own: self.field_names.get(own, own) for own in ("seed", *self._sampling)}
        refused = [own for own, name in sent.items() if name and re.search(rf"\b{re.escape(name)}\b", failure.reason)]
        if failure.error is not ValueError or not refused:
            return ""
        names = ", ".join(f"{own}: {'max_tokens' if own == _LENGTH else 'null'}" for own in refused)
        return (
            f"If it refuses {' and '.join(refused)}, set model.init_args.generator.init_args.field_names="
            f"'{{{names}}}' (the server's name for a field, or null to leave it out), and see what else it refuses"
        )

    def _explain(self, failure: Failure, num_answers: int) -> str:
        tries = "" if failure.advice else f"; it was tried {self.server.limits.max_retries + 1} times"
        advice = (
            self._name_refused_fields(failure)
            or failure.advice
            or "See whether the server runs, or raise max_retries or timeout of the limits"
        )
        if failure.error is PermissionError:
            state = "is set" if os.environ.get(self.api_key_variable, "").strip() else "is not set"
            advice += f" (the environment variable {self.api_key_variable} {state})"
        kept = f"The {num_answers} answers of this batch that had come are lost, because no cache is set."
        if self.cache is not None:
            with CompletionCache(self.cache) as cache:
                kept = f"{len(cache)} answers are safe in the cache {cache.path}, and will not be asked for again."
        return f"{self.server.base_url} {failure.reason}{tries}. {advice}, then start the same command again. {kept}"


def _check_fields(field_names: Mapping[str, str | None], sent: Sequence[str], extra_body: Mapping[str, Any]) -> None:
    if unknown := sorted(field_names.keys() - set(_FIELDS)):
        raise ValueError(
            f"OpenAICaptionGenerator was given field_names for {', '.join(map(repr, unknown))}; expected some of "
            f"{', '.join(_FIELDS)}, each with the server's name for it, or null to leave it out."
        )
    names = [*("model", "messages"), *(field_names.get(name, name) for name in sent), *extra_body]
    if twice := sorted({name for name in names if name is not None and names.count(name) > 1}):
        raise ValueError(
            f"OpenAICaptionGenerator was given two values for {', '.join(map(repr, twice))}, by its arguments, "
            "field_names and extra_body; expected one. Leave it out of extra_body, or set it to null in field_names."
        )


def _check_address(base_url: str) -> None:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        # It is not quoted: it may hold a secret.
        raise ValueError(
            "OpenAICaptionGenerator was given a base_url that is no plain address; expected http or https, host and "
            "path, such as http://127.0.0.1:8000/v1, without user name, password or query. A key belongs into the "
            "environment."
        )
