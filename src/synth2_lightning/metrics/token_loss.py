"""The mean loss per token of a whole validation split."""

from collections.abc import Sequence

import torch
from torch import Tensor

from synth2_lightning.metrics.corpus import KeyedMetric
from synth2_lightning.types import TokenLoss


class MeanTokenLoss(KeyedMetric):
    """Mean loss per target token (nats) over the pictures of all ranks, each picture once.

    A mean over ranks would count those twice that a distributed sampler repeats, and depend on the number of ranks.

    Example:
        >>> metric = MeanTokenLoss()
        >>> metric.update(("1", "2", "1"), TokenLoss(torch.tensor([2.0, 4.0, 2.0]), torch.tensor([1, 2, 1])))
        >>> metric.compute()
        tensor(2.)
    """

    higher_is_better = False

    def update(self, keys: Sequence[str], losses: TokenLoss) -> None:
        """Add pictures.

        Args:
            keys: One id per picture, the same in every epoch and on every rank.
            losses: Theirs.
        """
        self.rows += zip(keys, losses.sums.tolist(), losses.counts.tolist(), strict=True)

    def compute(self) -> Tensor:
        """Mean over the pictures of all ranks.

        Raises:
            ValueError: If there is none.
        """
        _, sums, counts = zip(*self.unique_rows(), strict=True)
        return torch.tensor(sum(sums) / sum(counts))
