"""FSDP1 on CPUs, for tests; Lightning and torch restrict it to GPUs."""

from typing import Any

import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch.distributed.fsdp import fully_sharded_data_parallel
from torch.distributed.fsdp._common_utils import _FSDPDeviceHandle


def _take_processor(state: Any, *_: Any) -> Any:
    state._device_handle = _FSDPDeviceHandle.from_device(torch.device("cpu"))
    return state


fully_sharded_data_parallel._init_device_handle = _take_processor  # type: ignore[attr-defined]


class CpuFSDPStrategy(FSDPStrategy):
    """Subclass, because Lightning refuses only the class itself."""
