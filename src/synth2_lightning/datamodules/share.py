"""How much of a batch is synthetic, as a function of the step."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction


class ShareSchedule(ABC):
    """The share of synthetic pairs in the batch of a step.

    A function of the step alone, so that every rank mixes alike and a resumed run goes on as it would have. A step is
    a batch of every rank, counted over epochs; an optimisation step that accumulates gradients has several.
    """

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Share of synthetic pairs, from 0 to 1, in the batch of a step (the first is 0)."""

    def check(self, batch_size: int) -> None:  # noqa: B027 - most schedules can only be rounded to whole pairs
        """Refuse a batch size that the schedule does not divide, where it ought to."""


class ConstantShare(ShareSchedule):
    """The same share in every batch.

    Args:
        share: From 0 (photographs only) to 1 (synthetic pairs only).

    Raises:
        ValueError: If the share is not from 0 to 1.

    Example:
        >>> ConstantShare(0.25)(1000)
        0.25
    """

    def __init__(self, share: float) -> None:
        self.share = _check_share("ConstantShare.share", share)

    def __call__(self, step: int) -> float:
        """Share of synthetic pairs."""
        return self.share

    def check(self, batch_size: int) -> None:
        """Refuse a batch that cannot hold the share exactly.

        Raises:
            ValueError: If the share is no whole number of pairs.
        """
        pairs = self.share * batch_size
        if math.isclose(pairs, round(pairs), abs_tol=1e-6):
            return
        divisor = Fraction(self.share).limit_denominator(1000).denominator
        smaller, larger = batch_size // divisor * divisor, (batch_size // divisor + 1) * divisor
        raise ValueError(
            f"A share of {self.share} of {batch_size} pairs is {pairs:g} pairs; expected a whole number. Set the share "
            f"to {math.floor(pairs) / batch_size:.6g} or {math.ceil(pairs) / batch_size:.6g}, or batch_size to "
            f"{f'{smaller} or ' if smaller else ''}{larger}."
        )


class LinearShare(ShareSchedule):
    """A share that changes evenly over steps, and stays.

    Args:
        start: Share at step 0.
        end: Share at ``num_steps`` and after.
        num_steps: How long the change takes.

    Raises:
        ValueError: If a share is not from 0 to 1, or ``num_steps`` is below one.

    Example:
        >>> [LinearShare(0.0, 0.5, num_steps=4)(step) for step in (0, 2, 4, 9)]
        [0.0, 0.25, 0.5, 0.5]
    """

    def __init__(self, start: float, end: float, num_steps: int) -> None:
        self.start = _check_share(f"{type(self).__name__}.start", start)
        self.end = _check_share(f"{type(self).__name__}.end", end)
        if num_steps < 1:
            raise ValueError(f"{type(self).__name__}.num_steps is {num_steps}; expected 1 or more.")
        self.num_steps = num_steps

    def __call__(self, step: int) -> float:
        """Share of synthetic pairs."""
        return self.start + (self.end - self.start) * self.progress(min(step / self.num_steps, 1.0))

    def progress(self, time: float) -> float:
        """How much of the change is done after this part of its time, both from 0 to 1."""
        return time


class CosineShare(LinearShare):
    """A share that changes over steps, slowly at both ends, and stays; arguments as of :class:`LinearShare`.

    Example:
        >>> [round(CosineShare(0.0, 1.0, num_steps=4)(step), 3) for step in (0, 1, 2, 4, 9)]
        [0.0, 0.146, 0.5, 1.0, 1.0]
    """

    def progress(self, time: float) -> float:
        """How much of the change is done: half a cosine."""
        return (1.0 - math.cos(math.pi * time)) / 2.0


class StepShare(ShareSchedule):
    """Shares that hold for a while each, such as synthetic pairs first and photographs after.

    Args:
        shares: One share per period.
        boundaries: Steps at which the second and every later period begins; rising, one fewer than the shares.

    Raises:
        ValueError: If a share is not from 0 to 1, or the boundaries do not fit.

    Example:
        >>> [StepShare([1.0, 0.0], boundaries=[1000])(step) for step in (999, 1000)]
        [1.0, 0.0]
    """

    def __init__(self, shares: Sequence[float], boundaries: Sequence[int]) -> None:
        self.shares = [_check_share("StepShare.shares", share) for share in shares]
        self.boundaries = list(boundaries)
        rising = all(low < high for low, high in zip([0, *self.boundaries], self.boundaries, strict=False))
        if len(self.shares) != len(self.boundaries) + 1 or not rising:
            raise ValueError(
                f"StepShare got {len(self.shares)} shares and the boundaries {self.boundaries}; expected rising steps "
                "above 0, one fewer than the shares."
            )

    def __call__(self, step: int) -> float:
        """Share of synthetic pairs."""
        return self.shares[sum(step >= boundary for boundary in self.boundaries)]


def _check_share(name: str, share: float) -> float:
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"{name} is {share}; expected a share from 0 to 1.")
    return share
