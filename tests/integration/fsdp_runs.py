"""Script of two processes for test_strategies.py, which Lightning's launcher starts."""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.strategies import ModelParallelStrategy

from ranks import Case, make_data, make_module, make_tokenizer

CASE = Case(fraction=0.5, num_val=3, num_train=32, strategy="fsdp")


def fit(num_steps: int, num_ranks: int, ckpt_path: Path | None = None, **settings: Any) -> Trainer:
    """Train up to a step on one or more processes with the same total batch."""
    seed_everything(0, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        devices=num_ranks,
        max_steps=num_steps,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    module = make_module(make_tokenizer())
    module.remove_ignored_hparams(["generation"])  # an object, which no run file has
    trainer.fit(module, make_data(CASE, num_ranks), ckpt_path=ckpt_path, weights_only=True)
    return trainer


def shard(**settings: Any) -> dict[str, Any]:
    """Return the settings of FSDP2 over two processes."""
    return {"num_ranks": 2, "strategy": ModelParallelStrategy(2, 1, **settings)}


def main(folder: Path) -> None:
    """Stop and resume under FSDP2, and resume from a checkpoint of one process."""
    trainer = fit(2, **shard(save_distributed_checkpoint=True))
    trainer.save_checkpoint(folder / "sharded.ckpt")
    whole = {
        name: weight.full_tensor() if hasattr(weight, "full_tensor") else weight
        for name, weight in trainer.lightning_module.state_dict().items()
    }
    trainer = fit(4, ckpt_path=folder / "sharded.ckpt", **shard(save_distributed_checkpoint=True))
    trainer.save_checkpoint(folder / "sharded_end.ckpt")
    trainer = fit(4, ckpt_path=folder / "one.ckpt", **shard(save_distributed_checkpoint=False))
    trainer.save_checkpoint(folder / "from_one.ckpt")
    if trainer.is_global_zero:
        torch.save(whole, folder / "whole.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_default_dtype(torch.float64)
    main(Path(sys.argv[1]))
