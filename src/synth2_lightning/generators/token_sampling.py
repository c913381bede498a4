"""Sampling of the next token."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads defaults with vars()
class TokenSampling:
    """Sampling settings, with the names and meanings of transformers' ``generate``.

    Args:
        max_new_tokens: Maximum number of tokens per completion.
        temperature: Divisor of the logits, above 0. Low values give similar captions within a class, high ones
            incoherent captions.
        top_k: Number of most probable tokens to sample from.
        top_p: Of these, the smallest set with at least this total probability.

    Raises:
        ValueError: If a value is out of range.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.95

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("max_new_tokens", "top_k"):
            if getattr(self, name) < 1:
                raise ValueError(f"TokenSampling.{name} is {getattr(self, name)}; expected 1 or more.")
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(
                f"TokenSampling.temperature is {self.temperature}; expected above 0. For greedy "
                "decoding, set top_k to 1."
            )
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"TokenSampling.top_p is {self.top_p}; expected above 0 and at most 1.")


def sample_next_tokens(
    logits: Float[Tensor, "rows vocabulary"], uniforms: Float[Tensor, " rows"], settings: TokenSampling
) -> Int[Tensor, " rows"]:
    """Sample one token per row by inverse transform sampling, with tokens in order of decreasing probability.

    A row's token depends only on its logits and its uniform number; rows share no random generator.

    Args:
        logits: Logits of any precision.
        uniforms: One number per row in [0, 1); 0 selects the most probable token.
        settings: Sampling settings.

    Example:
        >>> logits = torch.tensor([[0.0, 2.0, 1.0]])
        >>> [int(sample_next_tokens(logits, torch.tensor([u]), TokenSampling(top_p=1.0))) for u in (0.0, 0.7, 0.95)]
        [1, 2, 0]
    """
    values, tokens = logits.topk(min(settings.top_k, logits.shape[1]), dim=1)
    probabilities = (values.float() / settings.temperature).softmax(1)
    cumulative = probabilities.cumsum(1)
    kept = cumulative - probabilities < settings.top_p  # includes the token that crosses top_p
    totals = (probabilities * kept).sum(1)
    ranks = (cumulative <= (uniforms * totals).unsqueeze(1)).sum(1)
    ranks = torch.minimum(ranks, kept.sum(1) - 1)  # guards against rounding past the last kept token
    return tokens.gather(1, ranks.unsqueeze(1)).squeeze(1)
