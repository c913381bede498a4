"""Many texts written at once: rows that share the beginning of their prompts, each replaced as soon as it ends.

Three things make it quick. What all prompts begin with (instructions, examples) is read once, and all rows look at the
same keys and values of it by one matrix product (as in Hydragen, Juravsky et al. 2024, arXiv 2402.05099). A row that
ends is given the next prompt at once (continuous batching, Yu et al. 2022, "Orca"). And there is no padding: each row
writes at its own position.

And one thing makes it reproducible: every step has the same shapes, whatever the rows hold. So the arithmetic of a row,
down to its rounding, does not depend on what stands beside it or when it began.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from synth2_lightning.generators.token_sampling import SamplingSettings, sample_tokens

KeysAndValues = tuple[Float[Tensor, "groups length dim"], Float[Tensor, "groups length dim"]]
"""Of one layer, for a text that all rows share; groups G are the heads of keys and values."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A text to be written.

    Args:
        prompt: Ids of what comes after the shared beginning; at least one.
        seed: Decides, with the prompt, what is drawn.

    Example:
        >>> TokenRequest((5, 7), seed=3).prompt
        (5, 7)
    """

    prompt: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """A text that was written.

    Args:
        tokens: Its ids, without the one that ended it.
        is_finished: Whether it was ended by the model, and not cut.

    Example:
        >>> TokenAnswer((5, 7), is_finished=True).tokens
        (5, 7)
    """

    tokens: tuple[int, ...]
    is_finished: bool


class TailCache:
    """Keys and values of what each row has read since the shared beginning; stands in for a cache of transformers.

    Args:
        length: Most tokens that a row reads after the beginning.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.positions = torch.empty(0, dtype=torch.long)
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the keys and values of one token per row, and give those of all positions, stale ones included."""
        if layer_idx not in self._layers:
            num_rows, num_heads = keys.shape[:2]
            self._layers[layer_idx] = (
                keys.new_zeros(num_rows, num_heads, self.length, keys.shape[3]),
                values.new_zeros(num_rows, num_heads, self.length, values.shape[3]),
            )
        all_keys, all_values = self._layers[layer_idx]
        rows = torch.arange(len(keys), device=keys.device)
        all_keys[rows, :, self.positions] = keys.squeeze(2)
        all_values[rows, :, self.positions] = values.squeeze(2)
        return all_keys, all_values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Say how much is cached: of no meaning here, since positions and masks are given."""
        return 0


def attend_to_beginning_and_tail(
    module: Any,
    query: Float[Tensor, "rows heads 1 dim"],
    key: Float[Tensor, "rows groups tail dim"],
    value: Float[Tensor, "rows groups tail dim"],
    attention_mask: Float[Tensor, "rows 1 1 tail"],
    scaling: float,
    beginning: Sequence[KeysAndValues],
    **_: Any,
) -> tuple[Float[Tensor, "rows 1 heads dim"], None]:
    """Attention over a beginning that all rows share and a tail of each row's own; a function for transformers.

    Args:
        module: The attention layer, for its number.
        query: One position per row.
        key: Of the tail; several heads of the query may share one.
        value: Of the tail.
        attention_mask: Added to the logits of the tail.
        scaling: Multiplies the logits.
        beginning: Keys and values of the beginning, layer by layer.
    """
    shared_keys, shared_values = beginning[module.layer_idx]
    rows, heads, _one, dim = query.shape
    groups, length = shared_keys.shape[:2]
    grouped = query.reshape(rows, groups, heads // groups, dim)
    flat = grouped.transpose(0, 1).reshape(groups, -1, dim)
    shared = (flat @ shared_keys.transpose(1, 2)).view(groups, rows, -1, length).transpose(0, 1)
    own = grouped @ key.transpose(2, 3) + attention_mask / scaling
    weights = (torch.cat([shared, own], dim=3).float() * scaling).softmax(3).to(query.dtype)
    shared_weights = weights[..., :length].transpose(0, 1).reshape(groups, -1, length)
    mixed = (shared_weights @ shared_values).view(groups, rows, -1, dim).transpose(0, 1)
    mixed = mixed + weights[..., length:] @ value
    return mixed.reshape(rows, 1, heads, dim), None


@dataclass(slots=True)
class _Row:
    index: int
    prompt: tuple[int, ...]
    uniforms: list[float]
    num_read: int = 0
    tokens: list[int] = field(default_factory=list)

    @property
    def next_token(self) -> int:
        return self.prompt[self.num_read] if self.num_read < len(self.prompt) else self.tokens[-1]


class ContinuousBatch:
    """A language model at work on a fixed number of rows that share a beginning.

    Args:
        network: A causal language model of transformers whose attention is :func:`attend_to_beginning_and_tail`.
        beginning: Keys and values of the shared beginning, layer by layer.
        num_rows: How many texts are written at once. With another number the arithmetic may round otherwise.
        tail_length: Most tokens that a row may read after the beginning, prompt and answer together.
        settings: How to draw.
        end_tokens: Ids that end a text.
    """

    def __init__(
        self,
        network: Any,
        beginning: Sequence[KeysAndValues],
        num_rows: int,
        tail_length: int,
        settings: SamplingSettings,
        end_tokens: frozenset[int],
    ) -> None:
        self.network = network
        self.beginning = beginning
        self.num_rows = num_rows
        self.settings = settings
        self.end_tokens = end_tokens
        self._cache = TailCache(tail_length)
        self._device = beginning[0][0].device
        self._slots = torch.arange(tail_length, device=self._device)

    @torch.inference_mode()
    def answer(self, requests: Sequence[TokenRequest]) -> list[TokenAnswer]:
        """Write all texts.

        Raises:
            ValueError: If a prompt and its answer would not fit into the tail.
        """
        longest = max((len(request.prompt) for request in requests), default=0)
        if longest + self.settings.max_new_tokens - 1 > self._cache.length:
            raise ValueError(
                f"A prompt of {longest} tokens and an answer of {self.settings.max_new_tokens} do not fit into a tail "
                f"of {self._cache.length}."
            )
        answers: dict[int, TokenAnswer] = {}
        waiting = deque(enumerate(requests))
        rows: list[_Row | None] = [None] * self.num_rows
        while len(answers) < len(requests):
            for place, row in enumerate(rows):
                if row is None and waiting:
                    rows[place] = self._begin(*waiting.popleft())
            self._step(rows)
            for place, row in enumerate(rows):
                if row is not None and (answer := self._finish(row)) is not None:
                    answers[row.index] = answer
                    rows[place] = None
        return [answers[index] for index in range(len(requests))]

    def _begin(self, index: int, request: TokenRequest) -> _Row:
        generator = torch.Generator().manual_seed(request.seed)
        uniforms = torch.rand(self.settings.max_new_tokens, generator=generator).tolist()
        return _Row(index, request.prompt, uniforms)

    def _step(self, rows: Sequence[_Row | None]) -> None:
        """Read one token in every row; idle rows read something, too, so that the shapes stay."""
        positions = torch.tensor([0 if row is None else row.num_read for row in rows], device=self._device)
        tokens = torch.tensor([0 if row is None else row.next_token for row in rows], device=self._device)
        self._cache.positions = positions
        dtype = self.beginning[0][0].dtype
        hidden = self._slots > positions.unsqueeze(1)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=self._device)
        mask.masked_fill_(hidden, torch.finfo(dtype).min / 2)
        logits = self.network(
            input_ids=tokens.unsqueeze(1),
            position_ids=(self.beginning[0][0].shape[1] + positions).unsqueeze(1),
            attention_mask=mask[:, None, None],
            cache=self._cache,
            use_cache=True,
            beginning=self.beginning,
        ).logits[:, -1]
        writing = []
        for place, row in enumerate(rows):
            if row is not None:
                row.num_read += 1
                if row.num_read >= len(row.prompt):
                    writing.append((place, row))
        if writing:
            uniforms = torch.tensor([row.uniforms[len(row.tokens)] for _, row in writing], device=self._device)
            chosen = sample_tokens(logits[[place for place, _ in writing]], uniforms, self.settings)
            for (_, row), token in zip(writing, chosen.tolist(), strict=True):
                row.tokens.append(token)

    def _finish(self, row: _Row) -> TokenAnswer | None:
        if row.tokens and row.tokens[-1] in self.end_tokens:
            return TokenAnswer(tuple(row.tokens[:-1]), is_finished=True)
        if len(row.tokens) == self.settings.max_new_tokens:
            return TokenAnswer(tuple(row.tokens), is_finished=False)
        return None
