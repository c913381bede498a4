from typing import Any

import pytest
import torch
from torch import Tensor

from synth2_lightning.nn.transfer import HostCopy


def test_a_copy_without_an_event_to_wait_for_is_complete_when_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[bool] = []

    def to(values: Tensor, _: str, **settings: Any) -> Tensor:
        copies.append(settings["non_blocking"])
        return values

    monkeypatch.setattr(Tensor, "to", to)
    assert HostCopy(torch.ones(2)).read() == [1.0, 1.0]
    assert copies == [False]
