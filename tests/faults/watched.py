"""Callback and caption generator of the runs that tests kill: it records every batch; it is slow."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from synth2_lightning.testing import TinyCaptionGenerator
from synth2_lightning.types import Completion, Prompt


class BatchRecorder(Callback):
    """Appends number, keys and loss of every training batch to a file of this rank."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        row = {
            "batch": trainer.fit_loop.total_batch_idx,
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "keys": batch.keys,
            "loss": outputs["loss"].item().hex(),
        }
        line = json.dumps(row) + "\n"
        # A single write, so that a kill leaves the complete line or nothing.
        file = os.open(Path(f"batches-{trainer.global_rank}.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, line.encode())
        os.close(file)


class SlowCaptionGenerator(TinyCaptionGenerator):
    """:class:`TinyCaptionGenerator` that takes 0.1 seconds per batch."""

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Completion]:
        time.sleep(0.1)
        return super().generate(prompts, seeds)
