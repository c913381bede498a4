"""Fully sharded data parallelism, second edition (torch's ``fully_shard``), through ModelParallelStrategy."""

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method


def shard_part(part: nn.Module, mesh: DeviceMesh, entries: tuple[str, ...] = ()) -> None:
    """Shard a part over the data-parallel dimension, block by block, then what is left as one group.

    Args:
        part: A resampler or a decoder; its blocks are the members of its ``nn.ModuleList`` children.
        mesh: The strategy's mesh, with a ``data_parallel`` dimension.
        entries: Methods besides ``forward`` that use the part's own parameters, so that they gather them too.
    """
    data_parallel = mesh["data_parallel"]
    blocks = [block for module in part.modules() if isinstance(module, nn.ModuleList) for block in module]
    for block in reversed(blocks):  # inner blocks before the blocks that hold them
        if any(True for _ in block.parameters()):
            fully_shard(block, mesh=data_parallel)
    fully_shard(part, mesh=data_parallel)
    for entry in entries:
        register_fsdp_forward_method(part, entry)
