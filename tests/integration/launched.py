"""Callback of the runs of test_launch.py that simulates a failure after a given step."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class SimulatedFailure(Callback):
    """Simulates a failure, once per folder: reaches the time limit, or kills the last rank.

    Args:
        step: Step after which the failure occurs.
        kind: ``time-out`` creates the file ``time-out``, and waits for the signal; ``death`` kills the last rank.
    """

    def __init__(self, step: int, kind: str) -> None:
        self.step = step
        self.kind = kind

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
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
