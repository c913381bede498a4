"""A training loader that a checkpoint can stop and start again."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from synth2_lightning.datamodules.sampling import StratifiedSampler
from synth2_lightning.types import ImageTextBatch


class ResumableDataLoader(DataLoader[ImageTextBatch]):
    """Counts the batches that it delivered, and goes on from there: in the next epoch, and after a restart.

    Lightning saves and restores every loader that has a state. What workers have read ahead is not delivered, so it is
    not counted, and a restart reads it again.

    Example:
        >>> sampler = StratifiedSampler([8], counts=lambda step: (2,), num_steps=4)
        >>> loader = ResumableDataLoader(list(range(8)), batch_size=None, sampler=sampler)
        >>> loader.state_dict()
        {'step': 0, 'drawn': [0]}
    """

    sampler: StratifiedSampler

    def __iter__(self) -> Iterator[ImageTextBatch]:  # type: ignore[override]  # torch promises its own class of iterator
        """Deliver an epoch."""
        for batch in super().__iter__():
            self.sampler.step += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The step that comes next, and what was dealt out before it."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a step."""
        self.sampler.load_state_dict(state)


def outlive_sigterm(_worker: int) -> None:
    """Have a worker end by SIGTERM only if its own process sends it.

    Schedulers, and shells, send it to all processes of a run at once; but the run decides when to stop, and wants its
    batches until then. It also ends workers so, such as one that waits for what another held when it was killed.

    Args:
        _worker: Its number, which ``DataLoader(worker_init_fn=...)`` gives.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "workers have one"

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
            pass
        os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=wait, daemon=True).start()
