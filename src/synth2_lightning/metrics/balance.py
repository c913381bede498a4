"""How evenly things are spread over groups: captions over classes, over clusters, over branches of WordNet."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Balance:
    """Figures of a spread over groups.

    Args:
        num_groups: Groups, empty ones included.
        entropy: Of the shares, in bits: from 0, all in one group, to log2(num_groups), all groups alike.
        evenness: The entropy over its greatest value (Pielou 1966), from 0 to 1; 1 where there is one group only.
        top_five_share: Share of the five largest groups, from 0 to 1.
        gini: Gini coefficient of the sizes: 0 where all groups are alike, near 1 where one holds all.

    Example:
        >>> measure_balance([2, 2, 2, 2]).evenness
        1.0
    """

    num_groups: int
    entropy: float
    evenness: float
    top_five_share: float
    gini: float


def measure_balance(sizes: Collection[int]) -> Balance:
    """Measure how evenly members are spread over groups.

    Args:
        sizes: Members of every group that there could be; those without one count as 0.

    Raises:
        ValueError: If no group has a member, or a size is negative.

    Example:
        >>> balance = measure_balance([6, 2, 0, 0])
        >>> round(balance.entropy, 3), balance.top_five_share, balance.gini
        (0.811, 1.0, 0.625)
    """
    counts = np.sort(np.asarray(list(sizes), dtype=np.float64))[::-1]
    total = counts.sum()
    if total == 0 or counts.min() < 0:
        raise ValueError(
            f"{len(counts)} groups have {total:.0f} members, the smallest {counts.min(initial=0):.0f}; expected sizes "
            "of 0 or more, one of them at least 1."
        )
    shares = counts / total
    filled = shares[shares > 0]
    entropy = max(0.0, float(-(filled * np.log2(filled)).sum()))  # one group gives -0.0
    ranks = np.arange(len(counts), 0, -1)  # from the smallest, 1, on
    return Balance(
        num_groups=len(counts),
        entropy=entropy,
        evenness=entropy / float(np.log2(len(counts))) if len(counts) > 1 else 1.0,
        top_five_share=float(shares[:5].sum()),
        gini=float(2 * (ranks * shares).sum() / len(counts) - (len(counts) + 1) / len(counts)),
    )
