from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest
import timm.optim.muon
import torch
from torch import nn
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

from synth2_lightning.modules.muon import Muon

MATRICES: list[tuple[int, ...]] = [(6, 9), (9, 6), (4, 512), (8, 3, 2, 2)]
OTHERS: list[tuple[int, ...]] = [(7,), (3, 9), (9, 3), (1, 5, 8), (6, 1, 5), (4, 513), (), (2, 2, 1, 1)]


def train(make: Callable[..., Optimizer], num_steps: int = 5) -> list[torch.Tensor]:
    torch.manual_seed(0)
    weights = [Parameter(torch.randn(shape)) for shape in MATRICES + OTHERS]
    groups = [{"params": weights[::2]}, {"params": weights[1::2], "weight_decay": 0.0, "lr": 0.3}]
    optimizer = make(groups, lr=0.1, weight_decay=0.05, betas=(0.8, 0.9))
    for step in range(num_steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape)
        weights[step].grad = None
        optimizer.step()
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize(
    ("is_native", "dtype"), [(False, torch.float32), (True, torch.bfloat16)], ids=["emulated", "native"]
)
def test_updates_equal_timms_in_the_precision_that_the_processor_computes_in(
    monkeypatch: pytest.MonkeyPatch, set_cpu: Callable[..., None], is_native: bool, dtype: torch.dtype
) -> None:
    set_cpu(has_bfloat16=is_native)
    ours = train(Muon)
    orthogonalize = partial(timm.optim.muon.zeropower_via_newtonschulz, dtype=dtype)
    monkeypatch.setattr(timm.optim.muon, "zeropower_via_newtonschulz", orthogonalize)
    for own, reference in zip(ours, train(timm.optim.Muon), strict=True):
        assert torch.equal(own, reference)


def test_groups_without_muon_are_updated_by_adamw() -> None:
    weights = [Parameter(torch.eye(4)) for _ in range(2)]
    groups = [{"params": weights[:1], "use_muon": False}]
    optimizers = [Muon(groups, lr=0.1, eps=1e-8), AdamW(weights[1:], lr=0.1, betas=(0.9, 0.95), weight_decay=0.0)]
    for weight, optimizer in zip(weights, optimizers, strict=True):
        weight.grad = torch.arange(16.0).reshape(4, 4)
        optimizer.step()
    torch.testing.assert_close(weights[0], weights[1])


def test_devices_compute_in_bfloat16_if_they_have_its_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes: list[torch.dtype] = []

    def note(matrix: torch.Tensor, *, dtype: torch.dtype, **_: object) -> torch.Tensor:
        dtypes.append(dtype)
        return matrix

    monkeypatch.setattr("synth2_lightning.modules.muon.zeropower_via_newtonschulz", note)
    monkeypatch.setattr("synth2_lightning.modules.muon.computes_bfloat16", lambda device: device.type == "meta")
    for device in ("meta", "cpu"):
        weight = Parameter(torch.empty(4, 4, device=device))
        weight.grad = torch.empty(4, 4, device=device)
        Muon([weight]).step()
    assert dtypes == [torch.bfloat16, torch.float32]


def test_a_resumed_optimizer_continues_bit_for_bit() -> None:
    def step(layer: nn.Linear, optimizer: Optimizer) -> None:
        layer(torch.ones(2, 5)).square().sum().backward()
        optimizer.step()

    torch.manual_seed(0)
    layers = [nn.Linear(5, 6) for _ in range(2)]
    optimizers = [Muon(layer.parameters(), lr=0.1) for layer in layers]
    step(layers[0], optimizers[0])
    layers[1].load_state_dict(layers[0].state_dict())
    optimizers[1].load_state_dict(deepcopy(optimizers[0].state_dict()))
    for layer, optimizer in zip(layers, optimizers, strict=True):
        layer.zero_grad()
        step(layer, optimizer)
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert torch.equal(layers[0].bias, layers[1].bias)


def test_the_closure_is_called_with_gradients() -> None:
    weight = Parameter(torch.ones(4, 4))

    def closure() -> torch.Tensor:
        loss = weight.square().sum()
        loss.backward()
        return loss.detach()

    assert float(Muon([weight]).step(closure)) == 16.0
    assert float(weight.detach().sum()) < 16.0
