"""Copies of full weights into modules whose weights may be sharded."""

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, Strategy
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def distribute_like(full: Tensor, weight: Tensor) -> Tensor:
    """Return a full weight with the placement of another one: as it is, or as a ``DTensor`` with this rank's shard.

    Args:
        full: Unsharded tensor, equal on all ranks.
        weight: Plain tensor or ``DTensor`` of the same shape.

    Example:
        >>> import torch
        >>> distribute_like(torch.ones(2), torch.zeros(2))
        tensor([1., 1.])
    """
    if isinstance(weight, DTensor):
        return distribute_tensor(full.to(weight.device, weight.dtype), weight.device_mesh, weight.placements)
    return full


def check_not_flattened(strategy: Strategy, name: str) -> None:
    """Raise on FSDP1 and DeepSpeed, which train flat copies of the weights: changes of the module's would be lost.

    Raises:
        ValueError: If the strategy is one of them; the message names the callback.
    """
    if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy):
        raise ValueError(
            f"{name} cannot change the module's weights under {type(strategy).__name__}, which trains flat copies of "
            "them; expected DDP or ModelParallelStrategy (overlays/strategy/fsdp.yaml). Use one of them, or remove the "
            "callback."
        )
