"""Which image tokens are hidden: in training at random, in generation fewer from step to step.

The schedules are MaskGIT's (Chang et al., arXiv 2202.04200) as MUSE uses them (Chang et al., arXiv 2301.00704).
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def draw_mask(
    num_rows: int, num_tokens: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Bool[Tensor, "rows tokens"]:
    """Hide tokens of training pictures: a share of cos(pi u / 2) of each, u uniform in [0, 1), and at least one.

    Args:
        num_rows: Pictures.
        num_tokens: N, tokens of a picture.
        generator: Source of randomness; torch's own where left out.
        device: Where the generator, and so the mask, lives.

    Returns:
        True where a token is hidden.

    Example:
        >>> draw_mask(2, 64).shape
        torch.Size([2, 64])
    """
    shares = (math.pi / 2 * torch.rand(num_rows, 1, generator=generator, device=device)).cos()
    num_hidden = (shares * num_tokens).round().clamp(min=1)
    ranks = torch.rand(num_rows, num_tokens, generator=generator, device=device).argsort(1).argsort(1)
    return ranks < num_hidden


def count_hidden(num_tokens: int, num_steps: int) -> tuple[int, ...]:
    """Number of tokens that are still hidden after each step of generation: N cos(pi/2 step/steps), rounded down.

    Every step reveals one token or more, and the last one the rest.

    Args:
        num_tokens: N, tokens of a picture.
        num_steps: Steps, 1 to N.

    Raises:
        ValueError: If there are more steps than tokens, or none.

    Example:
        >>> count_hidden(num_tokens=64, num_steps=4)
        (59, 45, 24, 0)
    """
    if not 1 <= num_steps <= num_tokens:
        raise ValueError(
            f"A picture of {num_tokens} tokens cannot be generated in {num_steps} steps; expected 1 to {num_tokens}, "
            "because every step reveals one token or more."
        )
    hidden, left = [], num_tokens
    for step in range(1, num_steps):
        wanted = math.floor(num_tokens * math.cos(math.pi / 2 * step / num_steps))
        left = max(num_steps - step, min(wanted, left - 1))
        hidden.append(left)
    return (*hidden, 0)


def gumbel(uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Turn uniform numbers in [0, 1) into standard Gumbel noise, finite throughout.

    Example:
        >>> gumbel(torch.tensor([0.0, 0.5])).isfinite().all()
        tensor(True)
    """
    tiny = torch.finfo(uniform.dtype).tiny
    return -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()


def sample_categorical(logits: Float[Tensor, "*rows codes"], uniform: Float[Tensor, "*rows"]) -> Int[Tensor, "*rows"]:
    """Draw a code per row by inverting its distribution function, so that one uniform number decides.

    Noise per code, as the Gumbel trick wants it, would be thousands of numbers per token; one number can be drawn
    ahead per record, and the draw does not depend on what else is in the batch.

    Args:
        logits: Unnormalised log-probabilities; minus infinity rules a code out.
        uniform: In [0, 1).

    Example:
        >>> sample_categorical(torch.tensor([[0.0, 0.0], [0.0, -torch.inf]]), torch.tensor([0.7, 0.7]))
        tensor([1, 0])
    """
    cumulative = logits.float().softmax(-1).cumsum(-1)
    # Scaled by the last value, because sums of floats end a little beside one.
    threshold = uniform.float()[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, threshold, right=True)[..., 0].clamp(max=logits.shape[-1] - 1)


def halton_order(height: int, width: int) -> Int[Tensor, " tokens"]:
    """Order of a grid's positions in which neighbours come far apart (Besnier et al., arXiv 2503.17076).

    The points of the Halton sequence in bases 2 and 3 spread evenly over the unit square; each names the cell that it
    falls into, and a cell counts when it is named first.

    Args:
        height: Rows.
        width: Columns.

    Returns:
        All positions in raster numbering, each once.

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
    """Mirror the digits of a number behind the point (van der Corput, 1935)."""
    value, scale = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        scale /= base
        value += digit * scale
    return value
