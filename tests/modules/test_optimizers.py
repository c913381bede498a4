from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, NAdam, Optimizer

from synth2_lightning.modules.optimizers import decay_groups, name_states, use_fused_kernels


def test_matrices_decay_and_vectors_do_not() -> None:
    layer, frozen = nn.Linear(2, 3), nn.Linear(2, 3).requires_grad_(False)
    decayed, others = decay_groups([*layer.parameters(), *frozen.parameters()])
    assert decayed == {"params": [layer.weight]}
    assert others == {"params": [layer.bias], "weight_decay": 0.0}


def test_flat_matrices_decay_and_empty_groups_are_dropped() -> None:
    flat = nn.Parameter(torch.zeros(6))
    assert decay_groups([flat], matrices={flat}) == [{"params": [flat]}]


def test_states_are_named_by_weight() -> None:
    layer = nn.Linear(2, 1)
    groups: list[dict[str, Any]] = [{"params": [layer.bias]}, {"params": [layer.weight]}]
    optimizer = AdamW(groups)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    moments = [state["state"][number]["exp_avg"] for number in (0, 1)]
    name_states(state, optimizer, layer)
    assert [group["params"] for group in state["param_groups"]] == [["bias"], ["weight"]]
    assert [state["state"][name]["exp_avg"] for name in ("bias", "weight")] == moments


def test_states_that_are_not_numbered_by_torch_or_of_other_weights_are_not_changed() -> None:
    layer = nn.Linear(2, 1)
    optimizer = AdamW(layer.parameters())
    named = {"state": {}, "param_groups": [{"params": ["weight", "bias"]}]}
    name_states(named, optimizer, layer)
    assert named["param_groups"] == [{"params": ["weight", "bias"]}]
    state = optimizer.state_dict()
    name_states(state, optimizer, nn.Linear(2, 1))
    assert state["param_groups"][0]["params"] == [0, 1]


@pytest.mark.parametrize(
    ("settings", "devices", "expected"),
    [({}, "gg", True), ({}, "gc", None), ({"foreach": True}, "gg", None), ({"fused": False}, "gg", False)],
)
def test_updates_are_fused_on_gpus_unless_settings_say_otherwise(
    settings: dict[str, Any], devices: str, expected: bool | None
) -> None:
    for kind in (AdamW, SGD):
        optimizer = kind([nn.Parameter(torch.ones(2))], **settings)
        optimizer.param_groups[0]["params"] = [SimpleNamespace(is_cuda=device == "g") for device in devices]
        use_fused_kernels(optimizer)
        assert optimizer.param_groups[0]["fused"] is expected


def test_optimizers_without_a_fused_kernel_are_not_changed() -> None:
    optimizer: Optimizer = NAdam([nn.Parameter(torch.ones(2))])
    groups = [dict(group) for group in optimizer.param_groups]
    optimizer.param_groups[0]["params"] = [SimpleNamespace(is_cuda=True)]
    use_fused_kernels(optimizer)
    assert optimizer.param_groups[0].keys() == groups[0].keys()
