import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, SingleDeviceStrategy
from torch import nn
from torch.optim import AdamW

from synth2_lightning.modules.muon import Muon
from synth2_lightning.training.sharding import (
    check_matrix_optimizer,
    choose_precision,
    find_blocks,
    ignore_frozen,
)


def test_blocks_are_members_of_lists_and_of_sequentials_of_one_class() -> None:
    mlp = nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 2))
    inner = nn.ModuleList([nn.Linear(2, 2), nn.GELU()])
    part = nn.ModuleDict({"list": nn.ModuleList([mlp, inner]), "row": nn.Sequential(mlp, nn.Sequential(inner))})
    found = find_blocks(part)
    assert found[:2] == [mlp, inner]
    assert inner[0] in found
    assert inner[1] not in found  # it has nothing to shard
    assert mlp[0] not in found
    assert len(found) == len(set(found))


def test_weights_are_gathered_in_bfloat16_under_mixed_precision_only() -> None:
    mixed = choose_precision("bf16-mixed")
    assert (mixed.param_dtype, mixed.reduce_dtype) == (torch.bfloat16, torch.float32)
    for precision in ("32-true", "bf16-true", "16-mixed"):
        assert choose_precision(precision).param_dtype is None


def half_frozen() -> nn.Sequential:
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(2, 2))
    layers[0].requires_grad_(False)
    return layers.to(memory_format=torch.channels_last)


def test_fsdp1_ignores_frozen_weights() -> None:
    layers = half_frozen()
    strategy = FSDPStrategy(parallel_devices=[torch.device("cpu")], cluster_environment=LightningEnvironment())
    ignore_frozen(layers, strategy)
    assert strategy.kwargs["ignored_states"] == [layers[0].weight, layers[0].bias]


def test_deepspeed_gets_contiguous_weights() -> None:
    layers = half_frozen()
    before = [weight.clone() for weight in layers.parameters()]
    ignore_frozen(layers, SingleDeviceStrategy("cpu"))
    assert next(layers.parameters()).stride(-1) == 3
    deepspeed = DeepSpeedStrategy.__new__(DeepSpeedStrategy)  # DeepSpeed is not installed
    ignore_frozen(layers, deepspeed)
    for weight, old in zip(layers.parameters(), before, strict=True):
        assert weight.data.view(torch.uint8).shape[-1] == 4 * weight.shape[-1]
        assert torch.equal(weight, old)


def test_muon_is_refused_for_flat_weights() -> None:
    matrix = nn.Parameter(torch.eye(2))
    muon, adamw = Muon([matrix], lr=0.1), AdamW([matrix])
    with pytest.raises(ValueError, match=r"Muon.*matrices.*FSDPStrategy.*AdamW"):
        check_matrix_optimizer(muon, FSDPStrategy())
    check_matrix_optimizer(adamw, FSDPStrategy())
    check_matrix_optimizer(muon, SingleDeviceStrategy("cpu"))
