from typing import Any

import pytest
import torch
from torch import Tensor

from synth2_lightning.nn.transfer import HostCopy, to_device


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return whether each copy is one that the host does not wait for."""
    copies: list[bool] = []

    def to(values: Tensor, _: Any, non_blocking: bool = False) -> Tensor:
        copies.append(non_blocking)
        return values

    monkeypatch.setattr(Tensor, "to", to)
    return copies


def test_a_copy_without_an_event_to_wait_for_is_complete_when_it_returns(copies: list[bool]) -> None:
    assert HostCopy(torch.ones(2)).read() == [1.0, 1.0]
    assert copies == [False]


def test_a_copy_to_a_gpu_of_apple_is_waited_for(copies: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", lambda values: values)
    for device in ("cuda", "mps"):
        to_device(torch.ones(2), torch.device(device))
    assert copies == [True, False]
