"""Caption generation with an OpenAI-compatible server: vLLM, llama.cpp, SGLang, transformers serve, or hosted."""

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
from synth2_lightning.interfaces import CaptionGenerator
from synth2_lightning.io.http_limits import run_async
from synth2_lightning.types import Completion, Prompt

_HOSTED = "https://api.openai.com/v1"
_SEED_BITS = 31  # llama.cpp accepts 32 bits, Gemini 31 and a sign
_LENGTH = "max_completion_tokens"
_FIELDS = ("seed", _LENGTH, "temperature", "top_p")
_ENDS = ("stop", "length", "")
_logger = logging.getLogger(__name__)


class OpenAICaptionGenerator(CaptionGenerator):
    """Chat completions of a language model on a server, with concurrent requests and an optional cache on disk.

    The API key is read from the environment for each batch and is never stored. Requests contain all settings and the
    lowest 31 bits of the seed; a server need not return the same answer to the same request, but the cache does.

    The limit is sent as ``max_completion_tokens``, which newer OpenAI models require and vLLM, SGLang, transformers
    serve, Gemini and llama.cpp (since February 2026) support. Use ``field_names`` for servers with other names, such as
    ``{max_completion_tokens: max_tokens, seed: random_seed}`` for Mistral's.

    Completions are the raw answers; :class:`~synth2_lightning.filters.answers.AnswerFilter` extracts the captions.
    Empty answers are not cached. A cached answer that the model ended is valid for every ``max_new_tokens``, a
    truncated one only for the same ``max_new_tokens``.

    Args:
        model: Name of the model on the server.
        base_url: Address of the server, such as ``http://127.0.0.1:8000/v1``; OpenAI's by default. Must not contain a
            user name or query, because run files and caption sets contain it.
        max_new_tokens: Maximum number of tokens per answer, including reasoning.
        temperature: Sampling temperature; 0 is greedy. ``None`` omits the field, for models that reject it.
        top_p: Total probability of the tokens to sample from; ``None`` omits the field.
        extra_body: Additional fields of every request, such as ``{"reasoning_effort": "none"}`` for hosted models, or
            ``{"chat_template_kwargs": {"enable_thinking": False}}`` for vLLM.
        field_names: The server's names of ``seed``, ``max_completion_tokens``, ``temperature`` and ``top_p``, where
            they differ; ``null`` omits a field.
        limits: Concurrency, rate, timeout and retries.
        cache: Folder on a local disk in which each answer is stored when it arrives. A resumed run reads answers from
            it; without it, the answers of an unfinished batch are lost.
        api_key_variable: Environment variable of the API key; if it is not set, local servers receive no key.

    Attributes:
        server: The server, with its counts of answers and retries.
        num_cached: Number of answers read from the cache so far.

    Raises:
        ValueError: If a number is out of range, ``base_url`` is not a plain address, or a field has two values.

    Example:
        >>> generator = OpenAICaptionGenerator("qwen3-8b", "http://127.0.0.1:8000/v1", cache="answers")
        >>> generator.provenance()["base_url"]  # no request was sent
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
        limits: RequestLimits = RequestLimits(),  # noqa: B008 - frozen; jsonargparse reads the default
        cache: str | None = None,
        api_key_variable: str = "OPENAI_API_KEY",
    ) -> None:
        super().__init__()
        if max_new_tokens < 1 or (temperature or 0.0) < 0 or not 0 < (1.0 if top_p is None else top_p) <= 1:
            raise ValueError(
                f"OpenAICaptionGenerator got max_new_tokens={max_new_tokens}, temperature={temperature} and "
                f"top_p={top_p}; expected max_new_tokens of 1 or more, temperature of 0 or more, and top_p in (0, 1]."
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
        self._warned_of_length = False
        self._num_empty = 0
        self.num_cached = 0

    def _load(self) -> None:
        """Check the API key and the cache; send no request."""
        self._read_key()
        if self.cache is not None:
            with CompletionCache(self.cache) as cache:
                _logger.info("The cache %s holds %d answers.", cache.path, len(cache))

    def provenance(self) -> dict[str, Any]:
        """Return the settings that determine answers, besides prompt, seed and API key."""
        return {
            "generator": f"openai:{self.model_name}",
            "base_url": self.server.base_url,
            **self._sampling,
            "extra_body": self.extra_body or {},
            **({"field_names": self.field_names} if self.field_names else {}),
        }

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Completion]:
        """Return one completion per prompt, in order, from the cache or the server.

        On failure, every answer received so far is in the cache.

        Raises:
            ConnectionError: If a request failed after all retries.
            OSError: If the cache cannot be read or written.
            PermissionError: If the server rejects the key, or the account's quota is exhausted.
            ValueError: If the numbers of seeds and prompts differ, the server rejects a request as invalid, or the
                cache is damaged.
        """
        if len(prompts) != len(seeds):
            raise ValueError(
                f"OpenAICaptionGenerator got {len(prompts)} prompts and {len(seeds)} seeds; expected one seed per "
                "prompt."
            )
        requests = [self._request(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        fingerprints = [self._fingerprint(request, self.field_names) for request in requests]
        answers: dict[bytes, Completion] = {}
        # Records with the same prompt and seed share one request.
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
        """Apply ``field_names``; the client accepts unknown fields only in ``extra_body``."""
        kept = {name: value for name, value in request.items() if name not in self.field_names}
        renamed = {name: request[own] for own, name in self.field_names.items() if name is not None and own in request}
        return {**kept, "extra_body": {**kept.get("extra_body", {}), **renamed}} if self.field_names else kept

    def _fingerprint(self, request: Mapping[str, Any], field_names: Mapping[str, str | None]) -> bytes:
        # Includes the address, because local servers may use one name for different models, and the seed even if it is
        # not sent, because several captions of one prompt are several answers.
        names = [field_names] if field_names else []
        return sha256(json.dumps([self.server.base_url, request, *names], sort_keys=True).encode()).digest()

    def _fingerprint_without_limit(self, request: Mapping[str, Any]) -> bytes:
        """Return the cache key of an answer that the model ended, which is valid for every limit."""
        unlimited = {name: value for name, value in request.items() if name != _LENGTH}
        return self._fingerprint(unlimited, {own: name for own, name in self.field_names.items() if own != _LENGTH})

    def _read_key(self) -> str:
        key = os.environ.get(self.api_key_variable, "").strip()
        if not key and self.server.base_url == _HOSTED:
            raise PermissionError(
                f"{_HOSTED} expected an API key, but the environment variable {self.api_key_variable} is not set. Set "
                "it to the key, set api_key_variable to another variable, or set base_url to another server."
            )
        if not (key.isascii() and key.isprintable()):
            raise ValueError(
                f"The environment variable {self.api_key_variable} contains invalid characters. Expected printable "
                "ASCII on one line; copy the key again."
            )
        return key

    async def _answer(
        self, requests: Mapping[bytes, dict[str, Any]], answers: dict[bytes, Completion]
    ) -> Failure | None:
        """Fill ``answers``; return the failure that stopped the batch, if any."""
        key = self._read_key()
        sent = {fingerprint: self._rename(request) for fingerprint, request in requests.items()}

        def keep(fingerprint: bytes, answer: Completion) -> None:
            self._check_length(answer)
            answers[fingerprint] = answer

        if self.cache is None:
            return await self.server.send_all(sent, key, keep)
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
            return await self.server.send_all(unknown, key, keep_on_disk)

    def _check_length(self, answer: Completion) -> None:
        limit = self.max_new_tokens
        if answer.num_tokens > limit and not self._warned_of_length:
            self._warned_of_length = True
            name = self.field_names.get(_LENGTH, _LENGTH)
            _logger.warning(
                "%s answered with %d tokens, though max_new_tokens=%d: %s. If the server supports max_tokens, set "
                "field_names: {max_completion_tokens: max_tokens}.",
                *(self.server.base_url, answer.num_tokens, limit),
                f"it seems to ignore {name}" if name else "field_names omits the limit",
            )

    def _check_empty(self, completions: Sequence[Completion]) -> None:
        num_empty = sum(not each.text.strip() and each.finish_reason == "length" for each in completions)
        if (self._num_empty + num_empty).bit_length() > self._num_empty.bit_length():  # warns at powers of two
            _logger.warning(
                "%s answered without content at the limit of max_new_tokens=%d, so far %d times: the model spent all "
                "tokens on reasoning. Raise model.init_args.generator.init_args.max_new_tokens, or disable reasoning "
                "with extra_body ({chat_template_kwargs: {enable_thinking: false}} or {reasoning_effort: none}). Such "
                "answers are not cached.",
                *(self.server.base_url, self.max_new_tokens, self._num_empty + num_empty),
            )
        self._num_empty += num_empty

    def _name_refused_fields(self, failure: Failure) -> str:
        """Return advice for a server that rejects a field; empty for other failures."""
        sent = {own: self.field_names.get(own, own) for own in ("seed", *self._sampling)}
        refused = [own for own, name in sent.items() if name and re.search(rf"\b{re.escape(name)}\b", failure.reason)]
        if failure.error is not ValueError or not refused:
            return ""
        names = ", ".join(f"{own}: {'max_tokens' if own == _LENGTH else 'null'}" for own in refused)
        return (
            f"If it rejects {' and '.join(refused)}, set model.init_args.generator.init_args.field_names="
            f"'{{{names}}}' (the server's name for a field, or null to omit it), and check the other fields"
        )

    def _explain(self, failure: Failure, num_answers: int) -> str:
        tries = "" if failure.advice else f"; the request was sent {self.server.limits.max_retries + 1} times"
        advice = (
            self._name_refused_fields(failure)
            or failure.advice
            or "Check that the server runs, or raise max_retries or timeout of the limits"
        )
        if failure.error is PermissionError:
            state = "is set" if os.environ.get(self.api_key_variable, "").strip() else "is not set"
            advice += f" (the environment variable {self.api_key_variable} {state})"
        kept = f"The {num_answers} answers of this batch are lost, because no cache is set."
        if self.cache is not None:
            with CompletionCache(self.cache) as cache:
                kept = f"{len(cache)} answers are safe in the cache {cache.path} and will not be requested again."
        return f"{self.server.base_url} {failure.reason}{tries}. {advice}, then start the same command again. {kept}"


def _check_fields(field_names: Mapping[str, str | None], sent: Sequence[str], extra_body: Mapping[str, Any]) -> None:
    if unknown := sorted(field_names.keys() - set(_FIELDS)):
        raise ValueError(
            f"OpenAICaptionGenerator got field_names for {', '.join(map(repr, unknown))}; expected any of "
            f"{', '.join(_FIELDS)}, each with the server's name, or null to omit it."
        )
    names = [*("model", "messages"), *(field_names.get(name, name) for name in sent), *extra_body]
    if twice := sorted({name for name in names if name is not None and names.count(name) > 1}):
        raise ValueError(
            f"OpenAICaptionGenerator got two values for {', '.join(map(repr, twice))} in its arguments, field_names "
            "and extra_body; expected one. Remove it from extra_body, or set it to null in field_names."
        )


def _check_address(base_url: str) -> None:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        # The message does not quote base_url, which may contain a secret.
        raise ValueError(
            "OpenAICaptionGenerator got a base_url that is not a plain address; expected http or https, host and path, "
            "such as http://127.0.0.1:8000/v1, without user name, password or query. Pass the key in the environment."
        )
