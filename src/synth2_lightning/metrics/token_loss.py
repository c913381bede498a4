"""Mean loss per token of a validation split."""

from collections.abc import Sequence

import torch
from torch import Tensor

from synth2_lightning.metrics.corpus_metrics import KeyedMetric
from synth2_lightning.types import TokenLoss


class MeanTokenLoss(KeyedMetric):
    """Mean loss per target token, in nats, over the images of all ranks.

    Each image counts once. A mean over ranks would include the repeats that distributed samplers add as padding.

    Example:
        >>> metric = MeanTokenLoss()
        >>> metric.update(("1", "2", "1"), TokenLoss(torch.tensor([2.0, 4.0, 2.0]), torch.tensor([1, 2, 1])))
        >>> metric.compute()
        tensor(2.)
    """

    higher_is_better = False

    def update(self, keys: Sequence[str], losses: TokenLoss) -> None:
        """Add a batch; a key identifies its image in all epochs and on all ranks."""
        self.rows += zip(keys, losses.sums.tolist(), losses.counts.tolist(), strict=True)

    def compute(self) -> Tensor:
        """Return the mean loss per token over the images of all ranks.

        Raises:
            ValueError: If there is no image.
        """
        _, sums, counts = zip(*self.unique_rows(), strict=True)
        return torch.tensor(sum(sums) / sum(counts), device=self.device)
