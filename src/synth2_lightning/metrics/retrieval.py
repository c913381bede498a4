"""Recall at k of retrieval."""

from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class RetrievalRecall(Metric):
    """Recall at k: fraction of queries whose own target is among the k nearest targets by cosine similarity.

    The mean of the targets is subtracted from queries and targets, because a large common component makes all cosines
    similar.

    Args:
        k: Number of nearest targets.

    Example:
        >>> import torch
        >>> metric = RetrievalRecall(k=1)
        >>> metric.update(torch.tensor([[1.0, 0.1], [0.1, 1.0]]), torch.eye(2))
        >>> metric.compute()
        tensor(1.)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    queries: list[Tensor]
    targets: list[Tensor]

    def __init__(self, k: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if k < 1:
            raise ValueError(f"RetrievalRecall.k is {k}; expected 1 or more.")
        self.k = k
        self.add_state("queries", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, queries: Float[Tensor, "batch dim"], targets: Float[Tensor, "batch dim"]) -> None:
        """Add queries and their targets."""
        self.queries.append(queries)
        self.targets.append(targets)

    def compute(self) -> Float[Tensor, ""]:
        """Return recall at k."""
        queries, targets = dim_zero_cat(self.queries), dim_zero_cat(self.targets)
        mean = targets.mean(0)
        cosines = normalize(queries - mean, dim=1) @ normalize(targets - mean, dim=1).T
        nearer = (cosines > cosines.diagonal()[:, None]).sum(1)
        return (nearer < self.k).float().mean()
