"""Script of two processes for test_host_waits.py: fits a module, and writes the collectives of each batch."""

import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.stopping import SigtermCallback
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.modules.muse import MuseModule
from synth2_lightning.nn.maskgit import MaskGit
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, TinyTextEncoder, tiny_batch


class Collectives(TorchDispatchMode):
    """Records the names of collectives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class PerBatch(Callback):
    """Groups the collectives by batch, from the start of one batch to that of the next; sends SIGTERM to rank 1."""

    def __init__(self, collectives: Collectives) -> None:
        self.collectives = collectives
        self.batches: list[list[str]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches.append(list(self.collectives.names))
        self.collectives.names.clear()
        if batch_idx == 3 and trainer.global_rank == 1:
            signal.raise_signal(signal.SIGTERM)


def make(name: str) -> LightningModule:
    if name == "captioner":
        return VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    return MuseModule(TinyImageTokenizer(), TinyTextEncoder(), partial(MaskGit, width=16, depth=1, num_heads=2))


def main(name: str, folder: Path) -> None:
    """Run the fit on this rank."""
    batches: Any = [tiny_batch(4, seed) for seed in range(20)]
    collectives = Collectives()
    counter = PerBatch(collectives)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp", logger=False, max_epochs=1, limit_val_batches=0,
        default_root_dir=folder, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, callbacks=[SigtermCallback(), counter],
    )  # fmt: skip
    try:
        with collectives:
            loader: Any = DataLoader(batches, batch_size=None)
            trainer.fit(make(name), loader, loader)
    finally:
        # The first batches are excluded, because DDP prepares its buckets in them.
        found = {"batches": counter.batches[3:], "step": trainer.global_step}
        (folder / f"{trainer.global_rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]))
