"""Order in which parallel decoding unmasks tokens."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from synth2_lightning.nn.masking import gumbel, halton_order


class UnmaskingOrder(ABC):
    """Order in which tokens are unmasked."""

    @abstractmethod
    def start(self, grid: tuple[int, int]) -> Int[Tensor, " tokens"]:
        """Return all positions of a grid, in the order in which they become candidates."""

    @abstractmethod
    def num_candidates(self, num_masked: int, num_unmasked: int) -> int:
        """Return how many of the next positions to predict in order to unmask ``num_unmasked`` of them."""

    @abstractmethod
    def rank(
        self,
        log_probabilities: Float[Tensor, "batch candidates"],
        uniform: Float[Tensor, "batch candidates"],
        fraction_left: float,
    ) -> Int[Tensor, "batch candidates"]:
        """Return the indices of the candidates in the order in which to unmask them.

        Args:
            log_probabilities: Log-probabilities of the sampled codes, summed over levels.
            uniform: Random numbers in [0, 1).
            fraction_left: Fraction of the steps that remains after this one.
        """


@dataclass(frozen=True)
class ConfidenceOrder(UnmaskingOrder):
    """Predicts all masked tokens, keeps the most confident predictions (MaskGIT, arXiv 2202.04200, section 3.2).

    Args:
        noise: Scale of the Gumbel noise on the confidence. It decreases linearly, from ``noise * (1 - 1 / num_steps)``
            at the first step to zero at the last. Without noise, the most frequent codes spread over the whole image.

    Raises:
        ValueError: If it is negative.

    Example:
        >>> order = ConfidenceOrder(noise=0.0)
        >>> order.rank(torch.tensor([[-1.0, -3.0, -2.0]]), torch.rand(1, 3), fraction_left=0.5)
        tensor([[0, 2, 1]])
    """

    noise: float = 4.5

    def __post_init__(self) -> None:
        """Check the range."""
        if self.noise < 0:
            raise ValueError(f"ConfidenceOrder.noise is {self.noise}; expected 0 or more.")

    def start(self, grid: tuple[int, int]) -> Int[Tensor, " tokens"]:
        """Return the raster order; every masked token is a candidate in every step."""
        return torch.arange(grid[0] * grid[1])

    def num_candidates(self, num_masked: int, num_unmasked: int) -> int:
        """Return the number of masked tokens."""
        return num_masked

    def rank(
        self,
        log_probabilities: Float[Tensor, "batch candidates"],
        uniform: Float[Tensor, "batch candidates"],
        fraction_left: float,
    ) -> Int[Tensor, "batch candidates"]:
        """Return the candidates by decreasing confidence, noise included."""
        confidence = log_probabilities + self.noise * fraction_left * gumbel(uniform)
        return confidence.argsort(dim=1, descending=True)


class HaltonOrder(UnmaskingOrder):
    """Unmasks distant tokens, independent of their confidence (Besnier et al., arXiv 2503.17076).

    Tokens of one step are sampled independently, which costs least where they depend least on each other. Only the
    tokens that a step unmasks are predicted.
    """

    def start(self, grid: tuple[int, int]) -> Int[Tensor, " tokens"]:
        """Return the order of the Halton sequence."""
        return halton_order(*grid)

    def num_candidates(self, num_masked: int, num_unmasked: int) -> int:
        """Return the number of tokens to unmask."""
        return num_unmasked

    def rank(
        self,
        log_probabilities: Float[Tensor, "batch candidates"],
        uniform: Float[Tensor, "batch candidates"],
        fraction_left: float,
    ) -> Int[Tensor, "batch candidates"]:
        """Return the order of the Halton sequence, which the candidates have."""
        return torch.arange(uniform.shape[1], device=uniform.device).expand(len(uniform), -1)
