"""How much of a codebook is in use."""

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
        """Count codes."""
        self.counts += ids.flatten().bincount(minlength=len(self.counts))


class CodebookPerplexity(_CodeCounts):
    """Exponential of the entropy of the codes that were seen: how many codes it is as if there were.

    1 says that every position has the same code, ``codebook_size`` that all codes are used alike.

    Args:
        codebook_size: Number of codes.

    Example:
        >>> perplexity = CodebookPerplexity(codebook_size=8)
        >>> perplexity.update(torch.tensor([[[0], [5]]]))
        >>> float(perplexity.compute())
        2.0
    """

    def compute(self) -> Float[Tensor, ""]:
        """Measure over all that was counted."""
        shares = self.counts / self.counts.sum()
        entropy: Tensor = torch.special.entr(shares).sum()
        return entropy.exp()


class CodebookUsage(_CodeCounts):
    """Share of the codes that were seen at least once, 0 to 1.

    Args:
        codebook_size: Number of codes.

    Example:
        >>> usage = CodebookUsage(codebook_size=8)
        >>> usage.update(torch.tensor([[[0], [5]]]))
        >>> float(usage.compute())
        0.25
    """

    def compute(self) -> Float[Tensor, ""]:
        """Measure over all that was counted."""
        return (self.counts > 0).float().mean()
