"""Whole weights for modules whose own may be spread over processes."""

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, Strategy
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


def refuse_flat_weights(strategy: Strategy, what: str) -> None:
    """Refuse FSDP1 and DeepSpeed, which train flat copies of the weights: what is put into the module would be lost.

    Args:
        strategy: The trainer's.
        what: Who puts weights into the module, for the message.

    Raises:
        ValueError: If it is one of them.

    Example:
        >>> from lightning.pytorch.strategies import SingleDeviceStrategy
        >>> refuse_flat_weights(SingleDeviceStrategy("cpu"), "WeightAveragingCallback")
    """
    if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy):
        raise ValueError(
            f"{what} cannot put weights into the module under {type(strategy).__name__}, which trains flat copies of "
            "them; expected DDP, or ModelParallelStrategy (overlays/fsdp.yaml), which shards as much. Take one of "
            "them, or leave the callback out."
        )
