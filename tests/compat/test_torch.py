import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict_saver import save
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from synth2_lightning.compat.torch import StorageInfo, checkpoint_activations, clone_default_store, keep_buffers


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized")
def test_the_index_of_a_sharded_checkpoint_locates_tensors_by_this_type(tmp_path: Path) -> None:
    save({"weight": torch.zeros(2)}, checkpoint_id=tmp_path)
    index = pickle.loads((tmp_path / ".metadata").read_bytes())
    [location] = index.storage_data.values()
    assert type(location) is StorageInfo
    assert StorageInfo(location.relative_path, location.offset, location.length) == location


@pytest.fixture
def _process_group() -> Iterator[None]:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{find_free_network_port()}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_process_group")
def test_the_default_store_is_reached_by_a_second_connection() -> None:
    store = clone_default_store()
    store.set("key", "value")
    assert store.get("key") == b"value"


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.num_calls = 0

    def forward(self, states: Tensor, scale: float = 1.0) -> Tensor:
        self.num_calls += 1
        scaled: Tensor = scale * self.linear(states).tanh()
        return scaled


def test_a_checkpointed_module_runs_again_in_the_backward_pass_even_in_evaluation() -> None:
    block = Block().eval()
    names = list(block.state_dict())
    states = torch.randn(2, 3, requires_grad=True)
    expected = torch.autograd.grad(block(states, scale=3.0).sum(), states)[0]
    checkpoint_activations(block)
    copied = copy.deepcopy(block)  # as weight averaging does
    for part in (block, copied):
        part.num_calls = 0
        assert torch.equal(torch.autograd.grad(part(states, scale=3.0).sum(), states)[0], expected)
        assert part.num_calls == 2
        with torch.no_grad():
            part(states)
        assert part.num_calls == 3
        assert list(part.state_dict()) == names


class Broadcasts(TorchDispatchMode):
    num = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num += func is torch.ops.c10d.broadcast_.default
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("_process_group")
@pytest.mark.parametrize("are_kept", [False, True])
def test_kept_buffers_are_not_broadcast_in_a_step(are_kept: bool) -> None:
    module = nn.Sequential(nn.BatchNorm1d(2))
    if are_kept:
        keep_buffers(module)
    wrapped = DistributedDataParallel(module)
    with Broadcasts() as broadcasts:  # type: ignore[no-untyped-call]
        wrapped(torch.ones(3, 2)).sum().backward()
    assert (broadcasts.num == 0) is are_kept
