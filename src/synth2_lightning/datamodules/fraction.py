"""Schedules of the fraction of synthetic pairs in a batch."""

import math
from abc import ABC, abstractmethod

from synth2_lightning.io.recorded_specs import Component


class FractionSchedule(Component, ABC):
    """Schedule of the fraction of synthetic pairs in a batch.

    The fraction depends on the step only, so that all ranks use the same one and resumed runs are exact. Steps count
    batches per rank over all epochs; with gradient accumulation, an optimizer step has several.
    """

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the fraction of synthetic pairs in the batch of a step, from 0 to 1; steps count from 0."""

    def check(self, batch_size: int) -> None:
        """Check that the batch size is compatible with the schedule; by default all are."""


class ConstantFraction(FractionSchedule):
    """Constant fraction of synthetic pairs.

    Args:
        fraction: From 0 (photos only) to 1 (synthetic pairs only).

    Raises:
        ValueError: If the fraction is not from 0 to 1.

    Example:
        >>> ConstantFraction(0.25)(1000)
        0.25
    """

    def __init__(self, fraction: float) -> None:
        self.fraction = _check_fraction("ConstantFraction.fraction", fraction)

    def __call__(self, step: int) -> float:
        """Return the fraction of synthetic pairs."""
        return self.fraction

    def check(self, batch_size: int) -> None:
        """Check that the fraction of a batch is an integer number of pairs.

        Raises:
            ValueError: If it is not.
        """
        pairs = self.fraction * batch_size
        if _is_whole(pairs):
            return
        fractions = " or ".join(f"{round_to(pairs) / batch_size:.6g}" for round_to in (math.floor, math.ceil))
        sizes = [size for size in range(1, 2 * batch_size) if _is_whole(self.fraction * size)]
        nearest = sorted(sorted(sizes, key=lambda size: abs(size - batch_size))[:2])
        advice = f", or batch_size to {' or '.join(map(str, nearest))}" if nearest else ""
        raise ValueError(
            f"A fraction of {self.fraction} of {batch_size} pairs is {pairs:g} pairs; expected a whole number. Set the "
            f"fraction to {fractions}{advice}."
        )


class LinearFraction(FractionSchedule):
    """Fraction that changes linearly from ``start`` to ``end``, then is constant.

    Args:
        start: Fraction at step 0.
        end: Fraction from step ``num_steps`` on.
        num_steps: Duration of the change in steps.

    Raises:
        ValueError: If a fraction is not from 0 to 1, or ``num_steps`` is below 1.

    Example:
        >>> [LinearFraction(0.0, 0.5, num_steps=4)(step) for step in (0, 2, 4, 9)]
        [0.0, 0.25, 0.5, 0.5]
    """

    def __init__(self, start: float, end: float, num_steps: int) -> None:
        self.start = _check_fraction("LinearFraction.start", start)
        self.end = _check_fraction("LinearFraction.end", end)
        if num_steps < 1:
            raise ValueError(f"LinearFraction.num_steps is {num_steps}; expected 1 or more.")
        self.num_steps = num_steps

    def __call__(self, step: int) -> float:
        """Return the fraction of synthetic pairs."""
        return self.start + (self.end - self.start) * min(step / self.num_steps, 1.0)


def _is_whole(pairs: float) -> bool:
    return math.isclose(pairs, round(pairs), abs_tol=1e-6)


def _check_fraction(name: str, fraction: float) -> float:
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"{name} is {fraction}; expected a fraction from 0 to 1.")
    return fraction
