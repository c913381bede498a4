"""How the next token of a text is drawn."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads defaults by vars()
class SamplingSettings:
    """How texts are drawn; names and meanings are those of transformers' ``generate``.

    Args:
        max_new_tokens: Most tokens that an answer may have.
        temperature: Divides the logits; above 0. Low values repeat themselves over a class, high ones lose the thread.
        top_k: Only the likeliest tokens can be drawn, this many.
        top_p: Of these, the smallest set that has this probability.

    Raises:
        ValueError: If a value is out of its range.

    Example:
        >>> SamplingSettings(temperature=0.7).top_k
        50
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.95

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn from."""
        for name in ("max_new_tokens", "top_k"):
            if getattr(self, name) < 1:
                raise ValueError(f"SamplingSettings.{name} is {getattr(self, name)}; expected 1 or more.")
        if self.temperature <= 0.0:
            raise ValueError(
                f"SamplingSettings.temperature is {self.temperature}; expected above 0. For the likeliest tokens "
                "without chance set top_k to 1."
            )
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"SamplingSettings.top_p is {self.top_p}; expected above 0 and at most 1.")


def sample_tokens(
    logits: Float[Tensor, "rows vocabulary"], uniforms: Float[Tensor, " rows"], settings: SamplingSettings
) -> Int[Tensor, " rows"]:
    """Draw a token per row by the inverse of its distribution function, the likeliest tokens first.

    A row's token is a function of its logits and its number alone: no generator is shared between rows.

    Args:
        logits: Of any precision.
        uniforms: One number per row, from 0 (which draws the likeliest token) to below 1.
        settings: How to draw.

    Example:
        >>> logits = torch.tensor([[0.0, 2.0, 1.0]])
        >>> [int(sample_tokens(logits, torch.tensor([u]), SamplingSettings(top_p=1.0))) for u in (0.0, 0.7, 0.95)]
        [1, 2, 0]
    """
    values, tokens = logits.topk(min(settings.top_k, logits.shape[1]), dim=1)
    probabilities = (values.float() / settings.temperature).softmax(1)
    cumulative = probabilities.cumsum(1)
    kept = cumulative - probabilities < settings.top_p  # the token that crosses the bound stays
    totals = (probabilities * kept).sum(1)
    places = (cumulative <= (uniforms * totals).unsqueeze(1)).sum(1)
    places = torch.minimum(places, kept.sum(1) - 1)  # rounding must not step over the last kept token
    return tokens.gather(1, places.unsqueeze(1)).squeeze(1)
