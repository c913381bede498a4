"""What the runs of test_launch.py are made of: a callback that has the launcher's disaster come at a known step."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Disaster(Callback):
    """After a step, in the first life of a run: calls for the time-out and waits for it, or dies.

    Args:
        step: After which one.
        kind: ``time-out`` makes the file ``time-out``; ``death`` kills the last rank.
    """

    def __init__(self, step: int, kind: str) -> None:
        self.step = step
        self.kind = kind

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Do it, once."""
        if trainer.global_step != self.step or Path("happened").exists():
            return
        trainer.strategy.barrier()
        if trainer.global_rank == trainer.world_size - 1:
            Path("happened").touch()
            if self.kind == "death":
                os.kill(os.getpid(), signal.SIGKILL)
            Path("time-out").touch()
        if self.kind == "time-out":
            time.sleep(2)
