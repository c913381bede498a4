"""Masks of image tokens: random in training, fewer masked tokens from step to step in generation.

The schedules are MaskGIT's (Chang et al., arXiv 2202.04200) as MUSE uses them (Chang et al., arXiv 2301.00704).
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def sample_mask(uniform: Float[Tensor, "rows numbers"]) -> Bool[Tensor, "rows numbers-1"]:
    """Mask a fraction cos(pi u / 2) of the tokens of each training image, and at least one token.

    Args:
        uniform: Numbers in [0, 1): u, and one for each token; those with the smallest are masked.

    Example:
        >>> sample_mask(torch.tensor([[0.5, 0.9, 0.1, 0.8, 0.2]]))
        tensor([[False,  True,  True,  True]])
    """
    order = uniform[:, 1:]
    num_masked = ((math.pi / 2 * uniform[:, :1]).cos() * order.shape[1]).round().clamp(min=1)
    return order.argsort(1).argsort(1) < num_masked


def count_masked(num_tokens: int, num_steps: int) -> tuple[int, ...]:
    """Return the number of tokens still masked after each generation step, a fraction cos(pi/2 step/steps) of all.

    Each step unmasks at least one token; the last step unmasks the rest.

    Raises:
        ValueError: If there are more steps than tokens, or none.

    Example:
        >>> count_masked(num_tokens=64, num_steps=4)
        (59, 45, 24, 0)
    """
    if not 1 <= num_steps <= num_tokens:
        raise ValueError(
            f"{num_tokens} tokens cannot be generated in {num_steps} steps; expected 1 to {num_tokens}, because each "
            "step unmasks at least one token. Change num_steps."
        )
    masked, left = [], num_tokens
    for step in range(1, num_steps):
        wanted = math.floor(num_tokens * math.cos(math.pi / 2 * step / num_steps))
        left = max(num_steps - step, min(wanted, left - 1))
        masked.append(left)
    return (*masked, 0)


def gumbel(uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Transform uniform numbers in [0, 1) into standard Gumbel noise; every value is finite.

    Example:
        >>> gumbel(torch.tensor([0.0, 0.5])).isfinite().all()
        tensor(True)
    """
    tiny = torch.finfo(uniform.dtype).tiny
    return -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()


def sample_categorical(
    logits: Float[Tensor, "*rows codes"], uniform: Float[Tensor, "*rows"]
) -> tuple[Int[Tensor, "*rows"], Float[Tensor, "*rows"]]:
    """Sample a code per row by inverting the cumulative distribution; return the codes and their log-probabilities.

    The Gumbel-max trick needs one number per code. One number per token can be sampled in advance per record, so that a
    sample does not depend on the rest of the batch.

    Args:
        logits: Unnormalized log-probabilities; minus infinity excludes a code.
        uniform: In [0, 1).

    Example:
        >>> sample_categorical(torch.tensor([[0.0, 0.0], [0.0, -torch.inf]]), torch.tensor([0.7, 0.7]))
        (tensor([1, 0]), tensor([-0.6931,  0.0000]))
    """
    probabilities = logits.float().softmax(-1)
    cumulative = probabilities.cumsum(-1)
    # Scaled by the last value: a sum of floats is not exactly one.
    threshold = uniform.float()[..., None] * cumulative[..., -1:]
    codes = torch.searchsorted(cumulative, threshold, right=True).clamp(max=logits.shape[-1] - 1)
    return codes[..., 0], probabilities.gather(-1, codes)[..., 0].log()


def halton_order(height: int, width: int) -> Int[Tensor, " tokens"]:
    """Return an order of grid positions that puts neighbors far apart (Besnier et al., arXiv 2503.17076).

    The points of the Halton sequence in bases 2 and 3 cover the unit square evenly. The order is that in which the
    sequence first falls into each cell. Positions are raster indices.

    Example:
        >>> halton_order(2, 2)
        tensor([2, 1, 0, 3])
    """
    order: dict[int, None] = {}
    index = 1
    while len(order) < height * width:
        row, column = int(_van_der_corput(index, 2) * height), int(_van_der_corput(index, 3) * width)
        order.setdefault(row * width + column)
        index += 1
    return torch.tensor(list(order))


def _van_der_corput(index: int, base: int) -> float:
    """Return the radical inverse of a number: its digits mirrored at the radix point (van der Corput, 1935)."""
    value, scale = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        scale /= base
        value += digit * scale
    return value
