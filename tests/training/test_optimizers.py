from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, NAdam, Optimizer

from synth2_lightning.training.optimizers import decay_groups, find_weights, name_states, use_fused_kernels


class Model(nn.Module):
    """Its parameters have the shapes of matrices, and different roles."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(4, 8))
        self.embeddings = nn.Embedding(8, 8)
        self.attn = nn.MultiheadAttention(8, 2)
        self.conv = nn.Conv1d(8, 8, 3)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.head = nn.Linear(8, 8)
        self.tied = nn.Linear(8, 8, bias=False)
        self.tied.weight = self.embeddings.weight

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def test_parameters_are_grouped_by_role() -> None:
    model = Model()
    hidden, output, others = decay_groups(model)
    assert set(hidden["params"]) == {model.attn.in_proj_weight, model.attn.out_proj.weight, model.conv.weight}
    assert output == {"params": [model.head.weight], "use_muon": False}
    vectors = {model.attn.in_proj_bias, model.attn.out_proj.bias, model.conv.bias, model.head.bias}
    assert set(others.pop("params")) == {model.positions, model.embeddings.weight, *vectors}
    assert others == {"use_muon": False, "weight_decay": 0.0}


def test_output_layers_of_transformers_are_found() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=2, tie_word_embeddings=False)
    model = GPT2LMHeadModel(config)
    hidden, output, others = decay_groups(model)
    assert {tuple(weight.shape) for weight in hidden["params"]} == {(8, 24), (8, 8), (8, 32), (32, 8)}
    assert output["params"] == [model.lm_head.weight]
    assert {id(weight) for weight in others["params"]} >= {
        id(model.transformer.wte.weight),
        id(model.transformer.wpe.weight),
    }


def test_flattened_weights_keep_their_role_and_empty_groups_are_dropped() -> None:
    layer = nn.Linear(2, 3, bias=False)
    weights = find_weights(layer)
    layer.weight.data = layer.weight.data.flatten()
    assert decay_groups(layer, weights) == [{"params": [layer.weight]}]


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
        optimizer.param_groups[0]["params"] = [Mock(is_cuda=device == "g") for device in devices]
        use_fused_kernels(optimizer)
        assert optimizer.param_groups[0]["fused"] is expected


def test_optimizers_without_a_fused_kernel_are_not_changed() -> None:
    optimizer: Optimizer = NAdam([nn.Parameter(torch.ones(2))])
    groups = [dict(group) for group in optimizer.param_groups]
    optimizer.param_groups[0]["params"] = [Mock(is_cuda=True)]
    use_fused_kernels(optimizer)
    assert optimizer.param_groups[0].keys() == groups[0].keys()
