"""Factories, parameter groups and state names of optimizers."""

from collections.abc import Callable, Container, Iterable
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""``(parameter groups) -> optimizer``."""

SchedulerFactory = Callable[[Optimizer, int], LRScheduler]
"""``(optimizer, number of optimization steps) -> schedule``; the trainer sets the number."""


# timm.optim.param_groups_weight_decay has the same rule, but needs the weight decay, which is an argument of the
# optimizer's factory, and treats the flat matrices of FSDP1 as vectors.
def decay_groups(parameters: Iterable[nn.Parameter], matrices: Container[nn.Parameter] = ()) -> list[dict[str, Any]]:
    """Return groups of trainable parameters: matrices, and vectors without weight decay; empty groups are dropped.

    Args:
        parameters: All parameters.
        matrices: Parameters to treat as matrices although they are flat, as under FSDP1.

    Example:
        >>> [group.get("weight_decay") for group in decay_groups(nn.Linear(2, 3).parameters())]
        [None, 0.0]
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in parameters:
        if parameter.requires_grad:
            (decayed if parameter.ndim > 1 or parameter in matrices else others).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


# torch.distributed.checkpoint.state_dict.get_optimizer_state_dict does the same from the optimizer itself, but takes a
# step with zero gradients if there is no state yet: the resumed AdamW would count one step more.
def name_states(state: dict[str, Any], optimizer: Optimizer, module: nn.Module) -> None:
    """Replace parameter numbers by names in an optimizer's state, in place, so that any strategy can load it.

    A state that is not numbered as in torch's ``state_dict`` is not changed.

    Example:
        >>> from torch.optim import AdamW
        >>> layer = nn.Linear(2, 1)
        >>> optimizer = AdamW([{"params": [layer.bias]}, {"params": [layer.weight]}])
        >>> state = optimizer.state_dict()
        >>> name_states(state, optimizer, layer)
        >>> [group["params"] for group in state["param_groups"]]
        [['bias'], ['weight']]
    """
    by_weight = {weight: name for name, weight in module.named_parameters()}
    names = [by_weight.get(weight) for group in optimizer.param_groups for weight in group["params"]]
    numbers = [number for group in state.get("param_groups", ()) for number in group["params"]]
    if numbers != list(range(len(names))) or None in names:
        return
    state["state"] = {names[number]: value for number, value in state["state"].items()}
    state["param_groups"] = [
        {**group, "params": [names[number] for number in group["params"]]} for group in state["param_groups"]
    ]


def use_fused_kernels(optimizer: Optimizer) -> None:
    """Let Adam, AdamW and SGD update the weights on a GPU by one kernel per group, unless their settings say otherwise.

    Torch's default on GPUs is a kernel per operation. Settings that were given (``fused``, ``foreach``) are kept, as
    are groups with weights elsewhere, and those of which FSDP2 shards a part.

    Example:
        >>> from torch.optim import AdamW
        >>> optimizer = AdamW(nn.Linear(2, 1).parameters())  # on the CPU
        >>> use_fused_kernels(optimizer)
        >>> optimizer.param_groups[0]["fused"]
    """
    for group in optimizer.param_groups:
        is_default = "fused" in group and group["fused"] is None and group.get("foreach") is None
        is_uniform = len({isinstance(weight, DTensor) for weight in group["params"]}) == 1
        if is_default and is_uniform and all(weight.is_cuda for weight in group["params"]):
            group["fused"] = True
