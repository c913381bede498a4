"""Weights of synthetic pairs by their scores."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray


class ScoreWeights(ABC):
    """Maps scores of pairs to the weights of their losses, monotonically."""

    @abstractmethod
    def __call__(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the weight of each pair, above 0, with a mean of 1 over all pairs."""


class ExponentialWeights(ScoreWeights):
    """Weights in proportion to ``exp(z / temperature)`` of the standardized score ``z``, up to an upper bound.

    Advantage-weighted regression (Peng et al., arXiv 1910.00177) weights log-likelihoods in this way by standardized
    advantages: of all distributions of pairs with the same mean score, the weighted one is the closest to the original
    one. Standardization makes the temperature independent of the scorer.

    Args:
        temperature: Standard deviations of the score that change the weight by a factor of e; above 0.
        max_weight: Upper bound of ``exp(z / temperature)``; at least 1.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> ExponentialWeights(temperature=1.0)(np.array([-1.0, 1.0], np.float32)).round(2)
        array([0.24, 1.76], dtype=float32)
    """

    def __init__(self, temperature: float = 1.0, max_weight: float = 20.0) -> None:
        if not temperature > 0 or not max_weight >= 1:
            raise ValueError(
                f"ExponentialWeights got temperature={temperature} and max_weight={max_weight}; expected a temperature "
                "above 0 and a bound of at least 1."
            )
        self.temperature = temperature
        self.max_weight = max_weight

    def __call__(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the weight of each pair."""
        # A run resumes with equal weights only: rounding float64 to float32 hides differences between processors.
        values = scores.astype(np.float64)
        deviations = (values - values.mean()) / max(float(values.std()), np.finfo(np.float32).tiny)
        weights = np.exp(np.minimum(deviations / self.temperature, np.log(self.max_weight)))
        normalized: NDArray[np.float32] = (weights / weights.mean()).astype(np.float32)
        return np.maximum(normalized, np.finfo(np.float32).tiny)  # a batch of zeros would have no loss
