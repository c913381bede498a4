import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from torch.distributed.checkpoint.state_dict_saver import save

from synth2_lightning.compat.torch import StorageInfo, clone_default_store


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
