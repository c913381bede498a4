"""What two processes do in test_strategies.py when one of them dies: RANK SIGNAL as arguments."""

import os
import signal
import sys
import warnings
from typing import Any

from fsdp_runs import fit
from lightning.pytorch import Callback

from synth2_lightning.callbacks.rank_watch import RankWatchCallback


class Die(Callback):
    """Sends a signal to one process before its third step."""

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        """Die where it is time."""
        if trainer.global_rank == int(sys.argv[1]) and trainer.global_step == 2:
            sys.stderr.write(f"pid {os.getpid()}\n")
            os.kill(os.getpid(), signal.Signals[sys.argv[2]])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    fit(8, 2, strategy="ddp", callbacks=[RankWatchCallback(timeout=15), Die()])
