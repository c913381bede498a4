"""Whole weights for modules whose own may be spread over processes."""

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def spread_like(whole: Tensor, weight: Tensor) -> Tensor:
    """Give of a whole weight what belongs here, as another one of its shape lies: all of it, or this process's part.

    Args:
        whole: The same on all processes.
        weight: A plain tensor, or one of FSDP2.

    Example:
        >>> import torch
        >>> spread_like(torch.ones(2), torch.zeros(2))
        tensor([1., 1.])
    """
    if isinstance(weight, DTensor):
        return distribute_tensor(whole.to(weight.device, weight.dtype), weight.device_mesh, weight.placements)
    return whole
