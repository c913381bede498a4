"""Sharded weights: FSDP2 (torch's ``fully_shard``) through ModelParallelStrategy, and what older strategies need."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, Strategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FullyShardedDataParallel,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

SPAWNED_PROCESSES = (
    "The strategy starts processes by spawn or fork (ddp_spawn, ddp_fork, ddp_notebook), which cannot return what they "
    "train: weights exist in these processes only. Expected strategy='ddp', started as a script or by the synth2 "
    "command; in a notebook one device, or a command in a cell: !synth2 fit --config ... --trainer.strategy=ddp"
)


def refuse_spawned_processes(strategy: Strategy) -> None:
    """Refuse strategies that start processes by ``multiprocessing``.

    Args:
        strategy: The trainer's.

    Raises:
        ValueError: If it is one of them.

    Example:
        >>> from lightning.pytorch.strategies import DDPStrategy
        >>> refuse_spawned_processes(DDPStrategy())
    """
    if isinstance(strategy.launcher, _MultiProcessingLauncher):
        raise ValueError(SPAWNED_PROCESSES)


def shard_part(
    part: nn.Module,
    mesh: DeviceMesh,
    entries: tuple[str, ...] = (),
    policy: MixedPrecisionPolicy = MixedPrecisionPolicy(),  # noqa: B008 - frozen
) -> None:
    """Shard a part over the data-parallel dimension, block by block, then what is left as one group.

    Args:
        part: A resampler or a decoder; :func:`find_blocks` says which of its modules are blocks.
        mesh: The strategy's mesh, with a ``data_parallel`` dimension.
        entries: Methods besides ``forward`` that use the part's own parameters, so that they gather them too.
        policy: In which precision weights are gathered and gradients are summed.
    """
    data_parallel = mesh["data_parallel"]
    for block in reversed(find_blocks(part)):  # inner blocks before the blocks that hold them
        fully_shard(block, mesh=data_parallel, mp_policy=policy)
    fully_shard(part, mesh=data_parallel, mp_policy=policy)
    for entry in entries:
        register_fsdp_forward_method(part, entry)


def shard_frozen(part: nn.Module, mesh: DeviceMesh, entries: tuple[str, ...] = ()) -> None:
    """Shard the blocks of a part that is never trained; what is left stays whole, as do networks of convolutions.

    Whole is what other parts may read without a call, such as a codebook. And FSDP2 takes no weights in
    ``channels_last``, as convolutions have them; those networks are small.

    Args:
        part: An encoder; :func:`find_blocks` says which of its modules are blocks.
        mesh: The strategy's mesh, with a ``data_parallel`` dimension.
        entries: Methods besides ``forward`` that call the blocks.
    """
    blocks = [block for block in find_blocks(part) if all(weight.is_contiguous() for weight in block.parameters())]
    if not blocks:
        return
    data_parallel = mesh["data_parallel"]
    for block in reversed(blocks):
        fully_shard(block, mesh=data_parallel)
    whole = {weight for weight in part.parameters() if not isinstance(weight, DTensor)}
    fully_shard(part, mesh=data_parallel, ignored_params=whole)  # so that a block is gathered while another computes
    for entry in entries:
        register_fsdp_forward_method(part, entry)


def keep_frozen_whole(module: nn.Module, strategy: Strategy) -> None:
    """Have FSDP1 and DeepSpeed leave the weights alone that are never trained; other strategies do.

    FSDP1 would want them in every checkpoint, and DeepSpeed reads all weights byte by byte, which fails for those in
    ``channels_last``.

    Args:
        module: With its weights, before the strategy has seen it.
        strategy: The trainer's.
    """
    if isinstance(strategy, FSDPStrategy):
        frozen = [weight for weight in module.parameters() if not weight.requires_grad]
        for weight in frozen:
            weight.data = weight.data.to(strategy.root_device)  # FSDP1 moves none that it ignores
        strategy.kwargs["ignored_states"] = frozen
    elif isinstance(strategy, DeepSpeedStrategy):
        for weight in module.parameters():
            weight.data = weight.data.clone(memory_format=torch.contiguous_format)


def refuse_matrix_optimizer(optimizer: Optimizer, strategy: Strategy) -> None:
    """Refuse Muon where the strategy hands it flat pieces, which it would train as AdamW does, without a word.

    Raises:
        ValueError: If the optimizer is a Muon, and the strategy FSDP1 or DeepSpeed.
    """
    if "Muon" in type(optimizer).__name__ and isinstance(strategy, FSDPStrategy | DeepSpeedStrategy):
        raise ValueError(
            f"{type(optimizer).__name__} makes updates of whole matrices orthogonal; {type(strategy).__name__} gives "
            "it flat pieces of them. Expected an optimizer that takes every number by itself, such as "
            "--model.init_args.optimizer=torch.optim.AdamW, or ModelParallelStrategy (overlays/fsdp.yaml)."
        )


@contextmanager
def whole_weights(strategy: Strategy) -> Iterator[None]:
    """Have FSDP1 give the trained weights in one piece while the context lasts, which all processes must enter.

    Args:
        strategy: The trainer's; any other keeps them as they are.
    """
    if isinstance(strategy.model, FullyShardedDataParallel):
        with FullyShardedDataParallel.summon_full_params(strategy.model, writeback=False):
            yield
    else:
        yield


def refuse_tensor_parallel(mesh: DeviceMesh) -> None:
    """Refuse a mesh over whose second dimension the processes would train apart.

    Raises:
        ValueError: If it is larger than 1, as Lightning has it unless told, on one machine.
    """
    size = mesh["tensor_parallel"].size()
    if size > 1:
        raise ValueError(
            f"ModelParallelStrategy was given tensor_parallel_size={size}: these processes would train apart, because "
            f"only data parallelism is known here. Expected tensor_parallel_size=1 and data_parallel_size={mesh.size()}"
            ", the number of all processes, as in overlays/fsdp.yaml."
        )


def find_blocks(part: nn.Module) -> list[nn.Module]:
    """Find the modules that a part has many of: members of a ``ModuleList``, or of a ``Sequential`` of one class.

    Those without a parameter are left out, and those that lie in two lists come once.

    Example:
        >>> mlp = nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 2))
        >>> len(find_blocks(nn.Sequential(mlp, mlp))), len(find_blocks(mlp))
        (1, 0)
    """
    found: dict[nn.Module, None] = {}
    for module in part.modules():
        members = list(module.children())
        is_list = isinstance(module, nn.ModuleList)
        if is_list or (type(module) is nn.Sequential and len({type(member) for member in members}) == 1):
            found |= dict.fromkeys(member for member in members if any(True for _ in member.parameters()))
    return list(found)


def choose_precision(precision: str) -> MixedPrecisionPolicy:
    """Choose in which precision weights travel, by the trainer's.

    Under ``bf16-mixed`` weights are gathered in bfloat16, half the bytes, and the gradients' sum is taken in float32:
    a sum of many bfloat16 gradients loses what each of them adds. Under any other, both as they are.

    Example:
        >>> choose_precision("bf16-mixed").reduce_dtype
        torch.float32
    """
    if precision == "bf16-mixed":
        return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return MixedPrecisionPolicy()
