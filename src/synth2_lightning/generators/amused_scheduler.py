"""Steps of diffusers' ``AmusedScheduler`` for a batch whose images have one random generator each.

``AmusedScheduler.step`` has one generator for the whole batch, so that the tokens of an image would depend on its
batch, and it waits for the device. The steps below draw the same numbers for each image, and compute the rest for
several images at once, without waiting.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MAX_LOGITS = 2**25
"""Logits that are sampled at once: 128 MiB in float32, and as much for each of a few intermediate results."""


def amused_mask_counts(num_tokens: int, num_steps: int, schedule: Literal["cosine", "linear"]) -> list[int]:
    """Return the number of tokens that the scheduler masks after each step but the last, before it masks fewer.

    Example:
        >>> amused_mask_counts(num_tokens=256, num_steps=4, schedule="cosine")
        [236, 181, 97]
    """
    progress = torch.arange(1, num_steps) / num_steps
    fractions = torch.cos(progress * math.pi / 2) if schedule == "cosine" else 1 - progress
    return [int(number) for number in (num_tokens * fractions).floor()]


def sample_step(
    logits: Float[Tensor, "batch codes tokens"],
    ids: Int[Tensor, "batch tokens"],
    noises: Sequence[torch.Generator],
    mask_id: int,
    num_masked: int | None,
    temperature: Float[Tensor, ""],
) -> Int[Tensor, "batch tokens"]:
    """Return the tokens after a step: those that equal ``mask_id`` are sampled, and the least confident masked again.

    Args:
        logits: Logits of the codes, guidance included.
        ids: Tokens before the step.
        noises: Random generator of each image, on the device of the logits. A step advances it.
        mask_id: Id of the mask token.
        num_masked: Tokens to mask, out of :func:`amused_mask_counts`; ``None`` in the last step.
        temperature: Scale of the Gumbel noise on the confidence.
    """
    num_rows = max(1, MAX_LOGITS // logits[0].numel())
    parts = zip(logits.split(num_rows), ids.split(num_rows), range(0, len(ids), num_rows), strict=True)
    return torch.cat(
        [
            _sample_rows(part, known, noises[start : start + num_rows], mask_id, num_masked, temperature)
            for part, known, start in parts
        ]
    )


def _sample_rows(
    logits: Tensor,
    ids: Tensor,
    noises: Sequence[torch.Generator],
    mask_id: int,
    num_masked: int | None,
    temperature: Tensor,
) -> Tensor:
    is_masked = ids == mask_id
    probabilities = logits.transpose(1, 2).softmax(dim=-1)
    # One sample of torch.multinomial, which draws these numbers, too, but from a single generator.
    exponential = torch.empty(probabilities.shape, device=logits.device)
    for row, noise in zip(exponential, noises, strict=True):
        row.exponential_(generator=noise)
    sampled = torch.where(is_masked, probabilities.div(exponential).argmax(-1), ids)
    if num_masked is None:
        return sampled
    confidence = probabilities.gather(-1, sampled[..., None])[..., 0]
    confidence = confidence.masked_fill(~is_masked, torch.finfo(confidence.dtype).max)
    confidence = confidence.clamp(1e-20).log() + temperature * _gumbel(confidence, noises)
    return torch.where(_is_least(confidence, is_masked, num_masked), mask_id, sampled)


def _gumbel(values: Float[Tensor, "batch tokens"], noises: Sequence[torch.Generator]) -> Float[Tensor, "batch tokens"]:
    uniform = torch.empty_like(values)
    for row, noise in zip(uniform, noises, strict=True):
        row.uniform_(generator=noise)
    return -(-uniform.clamp(1e-20).log()).clamp(1e-20).log()


def _is_least(
    confidence: Float[Tensor, "batch tokens"], is_masked: Bool[Tensor, "batch tokens"], num_masked: int
) -> Bool[Tensor, "batch tokens"]:
    # At least one token of each step is unmasked, and one stays masked.
    number = (is_masked.sum(dim=-1, keepdim=True) - 1).clamp(max=num_masked).clamp(min=1)
    return confidence < confidence.sort(dim=-1).values.gather(1, number)
