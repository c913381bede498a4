"""The likelihood of words, without copies of all their logits."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def negative_log_likelihood(
    logits: Float[Tensor, "targets vocabulary"], targets: Int[Tensor, " targets"]
) -> Float[Tensor, " targets"]:
    """Negative log-likelihood (nats) of each target, computed in float32.

    As ``cross_entropy(logits.float(), targets, reduction="none")``, but the logits of a large vocabulary are visited
    a few rows at a time, in both passes: no float32 copies of them are kept, and what fits a cache is quick (450 rows
    of 49,152 words in bfloat16 on one core: 0.08 s instead of 0.20 s).

    Example:
        >>> negative_log_likelihood(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor([1.3863, 1.3863])
    """
    losses: Tensor = _NegativeLogLikelihood.apply(logits, targets)
    return losses


class _NegativeLogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        normalisers = torch.cat([logits[rows].float().logsumexp(1) for rows in _slices(logits)])
        ctx.save_for_backward(logits, targets, normalisers)
        return normalisers - logits.gather(1, targets[:, None]).squeeze(1).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logits, targets, normalisers = ctx.saved_tensors
        result = torch.empty_like(logits)
        for rows in _slices(logits):
            # d(loss) / d(logits) = softmax(logits) - one at the target
            slope = (logits[rows].float() - normalisers[rows, None]).exp_()
            slope.scatter_add_(1, targets[rows, None], slope.new_full((len(slope), 1), -1.0))
            result[rows] = slope.mul_(gradients[0][rows, None])
        return result, None


def _slices(logits: Tensor) -> Iterator[slice]:
    # A CPU wants what fits its cache, a GPU few launches.
    size = max(1, (2**20 if logits.is_cpu else 2**26) // logits.shape[1])
    return (slice(start, start + size) for start in range(0, max(1, len(logits)), size))
