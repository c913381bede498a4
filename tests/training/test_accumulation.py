"""Gradients of accumulated batches with unequal numbers of tokens equal those of the joined batch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import SGD
from torch.utils.data import DataLoader

from synth2_lightning.modules.base import BaseModule
from synth2_lightning.types import TokenLoss

Batch = tuple[torch.Tensor, torch.Tensor]


class Regression(BaseModule):
    """A row is an input with its number of tokens, each of which has the same loss."""

    def __init__(self) -> None:
        super().__init__(optimizer=lambda groups: SGD(groups, lr=0.5))
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        inputs, counts = batch
        loss, mean = self.mean_over_ranks(TokenLoss((self.layer(inputs) - 1).square().mean(1) * counts, counts))
        self.log("train/loss", mean)
        return loss

    def shard(self, mesh: DeviceMesh) -> None:
        fully_shard(self.layer, mesh=mesh["data_parallel"])


def rows(num: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num, 4, generator=generator), torch.randint(1, 60, (num,), generator=generator)


def fit(folder: Path, batches: list[Batch], **settings: Any) -> Regression:
    module = Regression()
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=folder, use_distributed_sampler=False, **settings,
    )  # fmt: skip
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return module


def split(rows: Batch, size: int) -> list[Batch]:
    return list(zip(*(part.split(size) for part in rows), strict=True))


@pytest.mark.parametrize("clip", [None, 0.1])
def test_accumulated_batches_are_weighted_by_their_tokens(tmp_path: Path, clip: float | None) -> None:
    joined = fit(tmp_path, split(rows(20), 8), gradient_clip_val=clip)
    # The last optimization step has two batches, not four.
    accumulated = fit(tmp_path, split(rows(20), 2), accumulate_grad_batches=4, gradient_clip_val=clip)
    for ours, theirs in zip(accumulated.parameters(), joined.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not torch.equal(joined.layer.weight, Regression().layer.weight)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_the_weights_are_those_of_all_ranks(tmp_path: Path, strategy: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, strategy, str(tmp_path)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    expected = [weight.detach() for weight in fit(tmp_path, split(rows(20), 8)).parameters()]
    found = torch.load(tmp_path / "weights.pt", weights_only=True)
    torch.testing.assert_close(found, expected)


def fit_on_two_ranks(name: str, folder: Path) -> None:
    """Fit rows 0, 1, 4, 5 ... on the first rank, the others on the second; two batches are one optimization step."""
    strategy = DDPStrategy() if name == "ddp" else ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    rank = int(os.environ.get("LOCAL_RANK", 0))
    module = fit(folder, split(rows(20), 2)[rank::2], strategy=strategy, devices=2, accumulate_grad_batches=2)
    whole = [weight.full_tensor() if isinstance(weight, DTensor) else weight for weight in module.parameters()]
    if rank == 0:
        torch.save([weight.detach() for weight in whole], folder / "weights.pt")


if __name__ == "__main__":
    fit_on_two_ranks(sys.argv[1], Path(sys.argv[2]))
