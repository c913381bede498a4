import torch
from torch import nn

from synth2_lightning.modules.sharding import choose_precision, find_blocks


def test_blocks_are_members_of_lists_and_of_rows_of_one_class() -> None:
    mlp = nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 2))
    inner = nn.ModuleList([nn.Linear(2, 2), nn.GELU()])
    part = nn.ModuleDict({"list": nn.ModuleList([mlp, inner]), "row": nn.Sequential(mlp, nn.Sequential(inner))})
    found = find_blocks(part)
    assert found[:2] == [mlp, inner]
    assert inner[0] in found
    assert inner[1] not in found  # it has nothing to shard
    assert mlp[0] not in found
    assert len(found) == len(set(found))


def test_weights_travel_in_bfloat16_under_mixed_precision_alone() -> None:
    mixed = choose_precision("bf16-mixed")
    assert (mixed.param_dtype, mixed.reduce_dtype) == (torch.bfloat16, torch.float32)
    for precision in ("32-true", "bf16-true", "16-mixed"):
        assert choose_precision(precision).param_dtype is None
