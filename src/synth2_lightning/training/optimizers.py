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


# timm.optim.param_groups_weight_decay decays embeddings unless it is given their names, and treats the flat matrices of
# FSDP1 as vectors.
def decay_groups(module: nn.Module, weights: Container[nn.Parameter] = ()) -> list[dict[str, Any]]:
    """Return groups of a module's trainable parameters by their role, without empty groups.

    1. Weights of hidden layers: matrices and convolutions, the only ones that Muon orthogonalizes.
    2. Weights of output layers, for AdamW: ``use_muon`` is False, the key of Muon's reference implementation and timm.
    3. Biases, gains, embeddings, positions and learned latents, for AdamW without weight decay.

    Roles follow conventions of torch and transformers. A weight is a parameter of two or more dimensions with
    ``weight`` in its name, as in ``nn.Linear``, convolutions, attention and recurrent layers, unless its module is an
    ``nn.Embedding``; a tied output layer is an embedding. Output layers are those that a module returns as
    ``get_output_embeddings()``. Override :meth:`~synth2_lightning.modules.base.BaseModule.parameter_groups` for
    modules with other names.

    Args:
        module: Module whose trainable parameters are grouped.
        weights: Weights that were flattened since, as under FSDP1; see :func:`find_weights`.

    Example:
        >>> model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4))
        >>> [len(group["params"]) for group in decay_groups(model)]
        [1, 2]
    """
    found, heads = find_weights(module), _find_output_weights(module)
    hidden: list[nn.Parameter] = []
    output: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            is_weight = parameter in found or parameter in weights
            (others if not is_weight else output if parameter in heads else hidden).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": hidden},
        {"params": output, "use_muon": False},
        {"params": others, "use_muon": False, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def find_weights(module: nn.Module) -> set[nn.Parameter]:
    """Return the weights of hidden and output layers, see :func:`decay_groups`.

    Example:
        >>> [weight.shape for weight in find_weights(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)))]
        [torch.Size([2, 4])]
    """
    embeddings: set[nn.Parameter] = set()
    weights: set[nn.Parameter] = set()
    for part in module.modules():
        own = dict(part.named_parameters(recurse=False))
        if isinstance(part, nn.Embedding | nn.EmbeddingBag):
            embeddings.update(own.values())
        else:
            weights.update(weight for name, weight in own.items() if weight.ndim > 1 and "weight" in name)
    return weights - embeddings


def _find_output_weights(module: nn.Module) -> set[nn.Parameter]:
    methods = (getattr(part, "get_output_embeddings", None) for part in module.modules())
    layers = [method() for method in methods if callable(method)]
    return {weight for layer in layers if isinstance(layer, nn.Module) for weight in layer.parameters()}


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
    are groups with weights elsewhere, and those of which FSDP2 shards a part. Fused kernels need their count of steps
    on the GPU; torch leaves it on the CPU when it loads a state that was saved without them, as by a run on a CPU.

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
        for weight in group["params"] if group.get("fused") else ():
            state = optimizer.state.get(weight, {})
            if "step" in state:
                state["step"] = state["step"].to(weight.device)
