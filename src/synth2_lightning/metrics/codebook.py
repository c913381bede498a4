"""Codebook perplexity and usage."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric


class _CodeCounts(Metric):
    full_state_update = False
    counts: Tensor

    def __init__(self, codebook_size: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(codebook_size), dist_reduce_fx="sum")

    def update(self, ids: Int[Tensor, "batch tokens levels"]) -> None:
        """Count the codes of a batch."""
        flat = ids.flatten()
        self.counts.index_add_(0, flat, torch.ones_like(flat, dtype=self.counts.dtype))  # bincount reads the largest id


class CodebookPerplexity(_CodeCounts):
    """Exponential of the entropy of the code distribution.

    1 if all tokens have the same code, ``codebook_size`` if all codes are equally frequent.

    Args:
        codebook_size: Number of codes.

    Example:
        >>> perplexity = CodebookPerplexity(codebook_size=8)
        >>> perplexity.update(torch.tensor([[[0], [5]]]))
        >>> float(perplexity.compute())
        2.0
    """

    def compute(self) -> Float[Tensor, ""]:
        """Return the perplexity of all counted codes."""
        fractions = self.counts / self.counts.sum()
        entropy: Tensor = torch.special.entr(fractions).sum()
        return entropy.exp()


class CodebookUsage(_CodeCounts):
    """Fraction of the codes that occur at least once, in [0, 1].

    Args:
        codebook_size: Number of codes.

    Example:
        >>> usage = CodebookUsage(codebook_size=8)
        >>> usage.update(torch.tensor([[[0], [5]]]))
        >>> float(usage.compute())
        0.25
    """

    def compute(self) -> Float[Tensor, ""]:
        """Return the fraction of codes in use."""
        return (self.counts > 0).float().mean()
