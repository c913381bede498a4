"""Continuous batching of prompts with a shared prefix.

The prefix (instructions, examples) is processed once; all rows attend to its keys and values in one matrix product
(Hydragen, Juravsky et al., arXiv 2402.05099). A finished row receives the next prompt in the next step (continuous
batching; Yu et al. 2022, "Orca"). Each row has its own position, so there is no padding.

Every step has the same shapes, whatever the rows contain. The arithmetic of a row, including its rounding, therefore
does not depend on the other rows or on the step at which the row starts.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from synth2_lightning.compat.transformers import cache_name
from synth2_lightning.generators.token_sampling import TokenSampling, sample_next_tokens

KeysAndValues = tuple[Float[Tensor, "groups length dim"], Float[Tensor, "groups length dim"]]
"""Keys and values of the shared prefix in one layer; groups are the key/value heads."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """Prompt and seed of one completion; the prompt is one or more token ids after the shared prefix."""

    prompt: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class TokenCompletion:
    """Token ids of one completion without the end token; incomplete if ``max_new_tokens`` was reached before it."""

    tokens: tuple[int, ...]
    is_complete: bool


class SuffixCache:
    """Key/value cache of each row's tokens after the shared prefix, with the interface of transformers' caches.

    Args:
        length: Maximum number of tokens per row after the prefix.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.positions = torch.empty(0, dtype=torch.long)
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store keys and values of one token per row; return those of all positions, including stale ones."""
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
        """Return 0; the length is not used, because positions and masks are passed explicitly."""
        return 0


def attend_to_prefix_and_suffix(
    module: Any,
    query: Float[Tensor, "rows heads 1 dim"],
    key: Float[Tensor, "rows groups suffix dim"],
    value: Float[Tensor, "rows groups suffix dim"],
    attention_mask: Float[Tensor, "rows 1 1 suffix"],
    scaling: float,
    prefix: Sequence[KeysAndValues],
    **_: Any,
) -> tuple[Float[Tensor, "rows 1 heads dim"], None]:
    """Attention over the shared prefix and each row's suffix, as an attention function of transformers.

    Args:
        module: Attention layer, for its index.
        query: Queries of one position per row.
        key: Keys of the suffix; several query heads may share one.
        value: Values of the suffix.
        attention_mask: Added to the logits of the suffix.
        scaling: Factor of the logits.
        prefix: Keys and values of the prefix per layer.
    """
    shared_keys, shared_values = prefix[module.layer_idx]
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
    """Completes any number of prompts in a fixed number of rows that share a prefix.

    Args:
        network: Causal language model of transformers with the attention :func:`attend_to_prefix_and_suffix`.
        prefix: Keys and values of the shared prefix per layer.
        num_rows: Number of texts per step. Another number may change the rounding.
        suffix_length: Maximum number of tokens per row after the prefix, prompt and completion together.
        settings: Sampling settings.
        end_tokens: Token ids that end a text.
    """

    def __init__(
        self,
        network: Any,
        prefix: Sequence[KeysAndValues],
        num_rows: int,
        suffix_length: int,
        settings: TokenSampling,
        end_tokens: frozenset[int],
    ) -> None:
        self.network = network
        self.prefix = prefix
        self.num_rows = num_rows
        self.settings = settings
        self.end_tokens = end_tokens
        self._cache = SuffixCache(suffix_length)
        self._device = prefix[0][0].device
        self._positions = torch.arange(suffix_length, device=self._device)

    @torch.inference_mode()
    def complete(self, requests: Sequence[TokenRequest]) -> list[TokenCompletion]:
        """Return one completion per request, in order.

        Raises:
            ValueError: If a prompt and its completion may exceed ``suffix_length``.
        """
        longest = max((len(request.prompt) for request in requests), default=0)
        if longest + self.settings.max_new_tokens - 1 > self._cache.length:
            raise ValueError(
                f"A prompt of {longest} tokens and max_new_tokens={self.settings.max_new_tokens} exceed the suffix; "
                f"expected at most {self._cache.length} tokens together."
            )
        completions: dict[int, TokenCompletion] = {}
        waiting = deque(enumerate(requests))
        rows: list[_Row | None] = [None] * self.num_rows
        while len(completions) < len(requests):
            for slot, row in enumerate(rows):
                if row is None and waiting:
                    index, request = waiting.popleft()
                    generator = torch.Generator().manual_seed(request.seed)
                    uniforms = torch.rand(self.settings.max_new_tokens, generator=generator).tolist()
                    rows[slot] = _Row(index, request.prompt, uniforms)
            self._step(rows)
            for slot, row in enumerate(rows):
                if row is not None and (completion := self._finish(row)) is not None:
                    completions[row.index] = completion
                    rows[slot] = None
        return [completions[index] for index in range(len(requests))]

    def _step(self, rows: Sequence[_Row | None]) -> None:
        """Process one token per row; idle rows process token 0 to keep the shapes constant."""
        positions = torch.tensor([0 if row is None else row.num_read for row in rows], device=self._device)
        tokens = torch.tensor([0 if row is None else row.next_token for row in rows], device=self._device)
        self._cache.positions = positions
        dtype = self.prefix[0][0].dtype
        is_masked = self._positions > positions.unsqueeze(1)
        mask = torch.zeros(is_masked.shape, dtype=dtype, device=self._device)
        mask.masked_fill_(is_masked, torch.finfo(dtype).min / 2)
        logits = self.network(
            input_ids=tokens.unsqueeze(1),
            position_ids=(self.prefix[0][0].shape[1] + positions).unsqueeze(1),
            attention_mask=mask[:, None, None],
            use_cache=True,
            prefix=self.prefix,
            **{cache_name(): self._cache},
        ).logits[:, -1]
        sampling = {}
        for slot, row in enumerate(rows):
            if row is not None:
                row.num_read += 1
                if row.num_read >= len(row.prompt):
                    sampling[slot] = row
        if sampling:
            uniforms = [row.uniforms[len(row.tokens)] for row in sampling.values()]
            sampled = sample_next_tokens(
                logits[list(sampling)], torch.tensor(uniforms, device=self._device), self.settings
            )
            for row, token in zip(sampling.values(), sampled.tolist(), strict=True):
                row.tokens.append(token)

    def _finish(self, row: _Row) -> TokenCompletion | None:
        if row.tokens and row.tokens[-1] in self.end_tokens:
            return TokenCompletion(tuple(row.tokens[:-1]), is_complete=True)
        if len(row.tokens) == self.settings.max_new_tokens:
            return TokenCompletion(tuple(row.tokens), is_complete=False)
        return None
