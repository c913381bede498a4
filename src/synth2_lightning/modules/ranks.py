"""What a rank must know of the others for a step to be that of one process with the whole batch."""

import torch
import torch.distributed as dist
from torch import Tensor

from synth2_lightning.types import TokenLoss


def mean_over_ranks(losses: TokenLoss) -> tuple[Tensor, Tensor]:
    """Mean loss per target token of all ranks' batches, for a gradient that does not depend on how many there are.

    DDP and FSDP average the ranks' gradients. The average of the ranks' means is another number than the mean over all
    tokens, since one rank's captions are longer than another's: so each gives its share of that one. A rank without a
    target token gives nothing, and stays in step.

    Args:
        losses: Of this rank's batch.

    Returns:
        What to differentiate: averaged over ranks it is the mean. And the mean (nats), the same on every rank.

    Raises:
        ValueError: On every rank, if none has a target token.

    Example:
        >>> [float(mean) for mean in mean_over_ranks(TokenLoss(torch.tensor([2.0, 4.0]), torch.tensor([1, 2])))]
        [2.0, 2.0]
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        mean = losses.mean()
        return mean, mean.detach()
    total = losses.sums.sum()
    over_ranks = torch.stack([total.detach().float(), losses.counts.sum().float()])
    dist.all_reduce(over_ranks)
    if not int(over_ranks[1]):
        losses.mean()  # it says what is wrong
    return total * (dist.get_world_size() / over_ranks[1]), over_ranks[0] / over_ranks[1]


def locate_rows(num_rows: int) -> tuple[int, slice]:
    """Rows of the whole batch, where all ranks have equally many, and which of them are this rank's.

    What all ranks draw alike for the whole batch and cut so is what one process draws for it.

    Example:
        >>> locate_rows(4)
        (4, slice(0, 4, None))
    """
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    return world_size * num_rows, slice(rank * num_rows, (rank + 1) * num_rows)
