"""Sharding by FSDP2 (torch's ``fully_shard``) under ModelParallelStrategy, and support of FSDP1 and DeepSpeed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, Strategy
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

from synth2_lightning.compat.lightning import is_multiprocessing
from synth2_lightning.compat.torch import keep_buffers
from synth2_lightning.io.messages import name_first

SPAWNED_PROCESSES = (
    "The strategy starts processes by spawn or fork (ddp_spawn, ddp_fork, ddp_notebook), whose trained weights are "
    "lost when they end. Expected strategy='ddp', started from a script or by the synth2 command. In a notebook use "
    "one device, or a command in a cell: !synth2 fit --config ... --trainer.strategy=ddp"
)


def check_launcher(strategy: Strategy) -> None:
    """Raise on strategies that start processes by ``multiprocessing``.

    Raises:
        ValueError: If the strategy is one of them.
    """
    if is_multiprocessing(strategy):
        raise ValueError(SPAWNED_PROCESSES)


def shard_component(
    part: nn.Module,
    mesh: DeviceMesh,
    entries: tuple[str, ...] = (),
    policy: MixedPrecisionPolicy = MixedPrecisionPolicy(),  # noqa: B008 - frozen
) -> None:
    """Shard a trained component over the data-parallel dimension: one group per block, and one for the other weights.

    Args:
        part: Resampler, decoder or the like; :func:`find_blocks` finds its blocks.
        mesh: Mesh of the strategy, with a ``data_parallel`` dimension.
        entries: Methods besides ``forward`` that use the component's own parameters and must gather them.
        policy: Precision of gathered weights and reduced gradients.
    """
    data_parallel = mesh["data_parallel"]
    for block in reversed(find_blocks(part)):  # inner blocks before those that contain them
        fully_shard(block, mesh=data_parallel, mp_policy=policy)
    fully_shard(part, mesh=data_parallel, mp_policy=policy)
    for entry in entries:
        register_fsdp_forward_method(part, entry)


def shard_frozen(part: nn.Module, mesh: DeviceMesh) -> None:
    """Shard the blocks of a frozen component; weights outside of blocks and convolutional networks are not sharded.

    Other components may read weights outside of blocks directly, such as a codebook. FSDP2 does not support the
    ``channels_last`` format of convolutional weights; those networks are small.

    Args:
        part: Encoder; :func:`find_blocks` finds its blocks.
        mesh: Mesh of the strategy, with a ``data_parallel`` dimension.
    """
    blocks = [block for block in find_blocks(part) if all(weight.is_contiguous() for weight in block.parameters())]
    if not blocks:
        return
    data_parallel = mesh["data_parallel"]
    for block in reversed(blocks):
        fully_shard(block, mesh=data_parallel)
    unsharded = {weight for weight in part.parameters() if not isinstance(weight, DTensor)}
    fully_shard(part, mesh=data_parallel, ignored_params=unsharded)  # overlaps gathering of blocks with computation


def ignore_frozen(module: nn.Module, strategy: Strategy) -> None:
    """Exclude buffers from DDP and frozen weights from FSDP1, and make weights contiguous for DeepSpeed.

    FSDP1 would require frozen weights in checkpoints, and DeepSpeed does not support ``channels_last``. Under other
    strategies the function has no effect. Call it before the strategy wraps the module.
    """
    if isinstance(strategy, FSDPStrategy):
        frozen = [weight for weight in module.parameters() if not weight.requires_grad]
        for weight in frozen:
            weight.data = weight.data.to(strategy.root_device)  # FSDP1 does not move ignored weights
        strategy.kwargs["ignored_states"] = frozen
    elif isinstance(strategy, DeepSpeedStrategy):
        for weight in module.parameters():
            weight.data = weight.data.clone(memory_format=torch.contiguous_format)
    elif isinstance(strategy, DDPStrategy):  # after DeepSpeedStrategy, its subclass
        # They are constants, or averages over all ranks, or running statistics, of which rank 0's are saved.
        keep_buffers(module)


def check_matrix_optimizer(optimizer: Optimizer, strategy: Strategy) -> None:
    """Raise on Muon under FSDP1 and DeepSpeed, whose flat weights it would silently update by AdamW.

    Raises:
        ValueError: If the optimizer is Muon, and the strategy FSDP1 or DeepSpeed.
    """
    if "Muon" in type(optimizer).__name__ and isinstance(strategy, FSDPStrategy | DeepSpeedStrategy):
        raise ValueError(
            f"{type(optimizer).__name__} orthogonalizes updates of matrices, but {type(strategy).__name__} flattens "
            "them. Expected an elementwise optimizer, such as --model.init_args.optimizer=torch.optim.AdamW, or "
            "ModelParallelStrategy (overlays/strategy/fsdp.yaml)."
        )


@contextmanager
def full_weights(strategy: Strategy) -> Iterator[None]:
    """Gather the trained weights of FSDP1 within the context, which all ranks must enter; else it has no effect."""
    if isinstance(strategy.model, FullyShardedDataParallel):
        with FullyShardedDataParallel.summon_full_params(strategy.model, writeback=False):
            yield
    else:
        yield


def check_mesh(mesh: DeviceMesh) -> None:
    """Raise on a mesh with tensor parallelism, which modules of this package do not support.

    Raises:
        ValueError: If the dimension ``tensor_parallel`` is larger than 1, which is Lightning's default on one machine.
    """
    size = mesh["tensor_parallel"].size()
    if size > 1:
        raise ValueError(
            f"ModelParallelStrategy got tensor_parallel_size={size}, but only data parallelism is supported. Expected "
            f"tensor_parallel_size=1 and data_parallel_size={mesh.size()}, the number of all processes, as in "
            "overlays/strategy/fsdp.yaml."
        )


def check_sharded(module: nn.Module) -> None:
    """Raise on a trained weight that is not sharded: FSDP2 would not reduce its gradient over ranks.

    Raises:
        ValueError: If there is one, such as a layer that a subclass adds.
    """
    trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    whole = [name for name, weight in trained.items() if not isinstance(weight, DTensor)]
    if whole:
        raise ValueError(
            f"{type(module).__name__}.shard() left {len(whole)} of {len(trained)} trained weights whole "
            f"({name_first(whole)}); expected all of them sharded, because the others would differ between ranks. "
            "Override shard(mesh) and call shard_component for the component that has them, or use ddp."
        )


def find_blocks(part: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks of a component: members of a ``ModuleList``, or of a ``Sequential`` of a single class.

    Modules without parameters are skipped; a module in two lists is returned once.

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
    """Return the precision of FSDP2's communication for the trainer's precision.

    Under ``bf16-mixed``, weights are gathered in bfloat16, half the bytes, and gradients are reduced in float32,
    because a sum of many bfloat16 gradients loses precision. Otherwise both keep their type.

    Example:
        >>> choose_precision("bf16-mixed").reduce_dtype
        torch.float32
    """
    if precision == "bf16-mixed":
        return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return MixedPrecisionPolicy()
