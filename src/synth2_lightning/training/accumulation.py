"""Accumulated gradients as the mean over the target tokens of all accumulated batches."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class TokenWeights:
    """Weights the batches of one optimization step by their numbers of target tokens.

    With ``accumulate_grad_batches=k``, Lightning divides each loss by k and adds the gradients. For the gradient of the
    joined batch, the loss of batch j must have the weight ``n_j / (n_1 + ... + n_k)`` of its number of tokens. The sum
    is known only after the last batch. So each loss is multiplied by ``n_j / n_1``, and the gradients once by
    ``k n_1 / (n_1 + ... + n_k)``, before they are clipped. This also holds for the last batches of an epoch, which may
    be fewer than k.

    Example:
        >>> weights, weight = TokenWeights(), nn.Parameter(torch.ones(()))
        >>> for loss, num_tokens in ((2.0, 1), (5.0, 3)):
        ...     (weights.scale_loss(loss * weight, torch.tensor(num_tokens)) / 2).backward()
        >>> weights.scale_gradients([weight], num_batches=2)
        >>> weight.grad
        tensor(4.2500)
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None
        self._total: Tensor | None = None

    def scale_loss(self, loss: Float[Tensor, ""], num_tokens: Tensor) -> Float[Tensor, ""]:
        """Return the loss of a batch with its weight relative to the first batch.

        Args:
            loss: Mean per target token.
            num_tokens: Number of target tokens, of all ranks; a scalar above 0.
        """
        num_tokens = num_tokens.float()
        if self._first is None or self._total is None:
            self._first = self._total = num_tokens
            return loss
        self._total = self._total + num_tokens
        return loss * (num_tokens / self._first)

    @torch.no_grad()
    def scale_gradients(self, parameters: Iterable[nn.Parameter], num_batches: int) -> None:
        """Scale the gradients to the mean over the tokens of all batches; the next batch is the first one again.

        Args:
            parameters: Parameters whose gradients were accumulated; others are left out.
            num_batches: Number by which each loss was divided.
        """
        if self._first is None or self._total is None:
            return
        scale = num_batches * self._first / self._total
        self._first = self._total = None
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(scale)
