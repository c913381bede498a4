"""What all ranks report in a training step: one all-reduce per batch, read by the host one batch later."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from synth2_lightning.nn.transfer import HostCopy
from synth2_lightning.types import TokenLoss


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """Outcome of a batch, on the host.

    Args:
        step: Number of the optimization step, from 1.
        loss: Loss of this rank as it is differentiated, for a check that it is finite: scaled if gradients are
            accumulated, and by the gradient scaler of ``16-mixed``.
        loss_sum: Summed loss of all ranks, not finite if that of any rank is not.
        num_tokens: Number of target tokens of all ranks.
        shown: Metrics of the progress bar, of this rank.
    """

    step: int
    loss: float
    loss_sum: float
    num_tokens: float
    shown: dict[str, float]


class StepStatus:
    """Combines loss, number of target tokens and stop requests of all ranks, in one all-reduce per batch.

    The host reads the sums of a batch only after the forward pass of the next batch, so that it does not wait for the
    device, and all ranks read the same values at the same point.

    Attributes:
        is_stop_requested: Whether this rank asks all ranks to stop; read in the next batch.
        is_stop_agreed: Whether any rank asked in a batch that was read; the same on all ranks.

    Example:
        >>> status = StepStatus()
        >>> loss, mean = status.mean_over_ranks(TokenLoss(torch.tensor([2.0, 4.0]), torch.tensor([1, 2])))
        >>> status.publish(loss, step=1, shown={"loss": mean})
        >>> status.read()
        BatchStatus(step=1, loss=2.0, loss_sum=6.0, num_tokens=3.0, shown={'loss': 2.0})
        >>> status.read()
    """

    def __init__(self) -> None:
        self.is_stop_requested = False
        self.is_stop_agreed = False
        self._sums: Tensor | None = None
        self._pending: tuple[int, tuple[str, ...], HostCopy] | None = None

    @property
    def num_tokens(self) -> Tensor:
        """Number of target tokens of all ranks in the batch whose mean was computed last, and that is not published."""
        if self._sums is None:
            raise RuntimeError("No batch has a mean yet; call mean_over_ranks() first.")
        return self._sums[1]

    def mean_over_ranks(self, losses: TokenLoss) -> tuple[Tensor, Tensor]:
        """Return the mean loss per target token over all ranks, so that gradients do not depend on the world size.

        DDP and FSDP average gradients over ranks. An average of the ranks' means would differ from the mean over all
        tokens, because ranks have different numbers of tokens. So each rank's sum is scaled by the world size and
        divided by the global number of tokens. A rank without target tokens contributes 0. Without target tokens on any
        rank the mean is NaN.

        Returns:
            The loss to differentiate, whose average over ranks is the mean, and the mean (nats), equal on all ranks.
        """
        total, count = losses.sums.sum(), losses.counts.sum()
        sums = self._reduce(total, count)
        if not _has_ranks():
            mean = total / count
            return mean, mean.detach()
        return total * (dist.get_world_size() / sums[1]), sums[0] / sums[1]

    def publish(self, loss: Tensor, step: int, shown: Mapping[str, Tensor]) -> None:
        """Start to copy the outcome of a batch to the host; call it once per batch, on all ranks.

        Args:
            loss: Loss of this rank as it is differentiated. It stands for one token if there was no call of
                :meth:`mean_over_ranks`.
            step: Number of the optimization step, from 1.
            shown: Metrics of the progress bar.
        """
        sums = self._reduce(loss, torch.ones_like(loss)) if self._sums is None else self._sums
        self._sums = None
        values = [loss.detach().float(), *sums, *(value.detach().float() for value in shown.values())]
        self._pending = (step, tuple(shown), HostCopy(torch.stack(values)))

    def read(self) -> BatchStatus | None:
        """Return the outcome of the last published batch; None if it was read before."""
        if self._pending is None:
            return None
        (step, names, copy), self._pending = self._pending, None
        loss, loss_sum, num_tokens, num_stops, *shown = copy.read()
        self.is_stop_agreed = self.is_stop_agreed or num_stops > 0
        return BatchStatus(step, loss, loss_sum, num_tokens, dict(zip(names, shown, strict=True)))

    def _reduce(self, total: Tensor, count: Tensor) -> Tensor:
        total = total.detach().float()
        sums = torch.stack([total, count.float(), torch.full_like(total, float(self.is_stop_requested))])
        if _has_ranks():
            dist.all_reduce(sums)
        self._sums = sums
        return sums


def _has_ranks() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1
