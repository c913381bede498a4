"""Which tokens a step of parallel decoding reveals."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from synth2_lightning.nn.masking import gumbel, halton_order


class UnmaskingOrder(ABC):
    """Decides which tokens a step reveals."""

    @abstractmethod
    def start(self, grid: tuple[int, int]) -> Int[Tensor, " tokens"]:
        """All positions of a grid, in the order in which they are asked."""

    @abstractmethod
    def count_asked(self, num_hidden: int, num_revealed: int) -> int:
        """How many of the next positions to guess in order to reveal some of them."""

    @abstractmethod
    def choose(
        self,
        log_probabilities: Float[Tensor, "batch asked"],
        uniform: Float[Tensor, "batch asked"],
        num_revealed: int,
        share_left: float,
    ) -> Int[Tensor, "batch revealed"]:
        """Which of the guesses to keep.

        Args:
            log_probabilities: Of the codes that were drawn, summed over levels.
            uniform: Random numbers in [0, 1).
            num_revealed: How many to keep.
            share_left: Share of the steps that is left after this one.
        """


class ConfidenceOrder(UnmaskingOrder):
    """Guesses every hidden token, keeps the surest (MaskGIT, arXiv 2202.04200, section 3.2).

    Args:
        noise: Gumbel noise on the sureness at the start; it falls linearly to nothing. Without it the most common codes
            spread over the whole picture.

    Raises:
        ValueError: If it is negative.

    Example:
        >>> order = ConfidenceOrder(noise=0.0)
        >>> order.choose(torch.tensor([[-1.0, -3.0, -2.0]]), torch.rand(1, 3), num_revealed=2, share_left=0.5)
        tensor([[0, 2]])
    """

    def __init__(self, noise: float = 4.5) -> None:
        if noise < 0:
            raise ValueError(f"ConfidenceOrder.noise is {noise}; expected 0 or more.")
        self.noise = noise

    def start(self, grid: tuple[int, int]) -> Int[Tensor, " tokens"]:
        """Raster order; it does not matter."""
        return torch.arange(grid[0] * grid[1])

    def count_asked(self, num_hidden: int, num_revealed: int) -> int:
        """All that are hidden."""
        return num_hidden

    def choose(
        self,
        log_probabilities: Float[Tensor, "batch asked"],
        uniform: Float[Tensor, "batch asked"],
        num_revealed: int,
        share_left: float,
    ) -> Int[Tensor, "batch revealed"]:
        """The surest, noise included."""
        sureness = log_probabilities + self.noise * share_left * gumbel(uniform)
        return sureness.topk(num_revealed, dim=1).indices


class HaltonOrder(UnmaskingOrder):
    """Reveals tokens that lie far apart, whatever their sureness (Besnier et al., arXiv 2503.17076).

    Tokens of one step are drawn independently of each other: that harms least where they are least related. And only
    those that are revealed need to be guessed.

    Example:
        >>> HaltonOrder().start((2, 2))
        tensor([2, 1, 0, 3])
    """

    def start(self, grid: tuple[int, int]) -> Int[Tensor, " tokens"]:
        """The order of the Halton sequence."""
        return halton_order(*grid)

    def count_asked(self, num_hidden: int, num_revealed: int) -> int:
        """Those that are revealed."""
        return num_revealed

    def choose(
        self,
        log_probabilities: Float[Tensor, "batch asked"],
        uniform: Float[Tensor, "batch asked"],
        num_revealed: int,
        share_left: float,
    ) -> Int[Tensor, "batch revealed"]:
        """All of them."""
        return torch.arange(num_revealed, device=uniform.device).expand(len(uniform), -1)
