"""Script of two processes for test_strategies.py, one of which receives a signal; arguments: RANK SIGNAL."""

import os
import signal
import sys
import warnings
from typing import Any

from fsdp_runs import fit
from lightning.pytorch import Callback

from synth2_lightning.callbacks.rank_watch import RankWatchCallback


class SignalRank(Callback):
    """Sends a signal to one rank before its third step."""

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.global_rank == int(sys.argv[1]) and trainer.global_step == 2:
            sys.stderr.write(f"pid {os.getpid()}\n")
            os.kill(os.getpid(), signal.Signals[sys.argv[2]])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    fit(8, 2, strategy="ddp", callbacks=[RankWatchCallback(timeout=15), SignalRank()])
