"""Balance of a distribution over groups, such as classes, clusters or WordNet branches."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Balance:
    """Balance statistics of group sizes.

    Args:
        num_groups: Number of groups, including empty ones.
        entropy: Entropy in bits, from 0 (a single group has all members) to log2(num_groups) (equal sizes).
        evenness: Entropy divided by log2(num_groups) (Pielou 1966), in [0, 1]; 1 for a single group.
        top_five_fraction: Fraction of members in the five largest groups, in [0, 1].
        gini: Gini coefficient of the sizes: 0 for equal sizes, near 1 if one group has all members.
    """

    num_groups: int
    entropy: float
    evenness: float
    top_five_fraction: float
    gini: float


def measure_balance(sizes: Collection[int]) -> Balance:
    """Return balance statistics of group sizes, which are 0 for empty groups.

    Raises:
        ValueError: If all groups are empty, or a size is negative.

    Example:
        >>> balance = measure_balance([6, 2, 0, 0])
        >>> round(balance.entropy, 3), balance.top_five_fraction, balance.gini
        (0.811, 1.0, 0.625)
    """
    counts = np.sort(np.asarray(list(sizes), dtype=np.float64))[::-1]
    total = counts.sum()
    if total == 0 or counts.min() < 0:
        raise ValueError(
            f"{len(counts)} groups have {total:.0f} members, the smallest {counts.min(initial=0):.0f}; expected "
            "non-negative sizes and at least one member."
        )
    fractions = counts / total
    filled = fractions[fractions > 0]
    entropy = max(0.0, float(-(filled * np.log2(filled)).sum()))  # one group gives -0.0
    ranks = np.arange(len(counts), 0, -1)  # counts are sorted in descending order
    return Balance(
        num_groups=len(counts),
        entropy=entropy,
        evenness=entropy / float(np.log2(len(counts))) if len(counts) > 1 else 1.0,
        top_five_fraction=float(fractions[:5].sum()),
        gini=float(2 * (ranks * fractions).sum() / len(counts) - (len(counts) + 1) / len(counts)),
    )
