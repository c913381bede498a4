"""Resumable data loader for training."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from synth2_lightning.datamodules.copy_ahead import copy_ahead
from synth2_lightning.datamodules.pairs import Batch
from synth2_lightning.datamodules.sampling import StratifiedBatchSampler


class ResumableDataLoader(DataLoader[Batch]):
    """Data loader whose state is the number of batches it has yielded, over all epochs.

    Lightning saves and restores data loaders with ``state_dict``. Prefetched batches are not counted, so that a resumed
    run reads them again.

    Args:
        *args: Those of ``DataLoader``.
        device: Device of the batches; see :func:`~synth2_lightning.datamodules.copy_ahead.copy_ahead`.
        **kwargs: Those of ``DataLoader``.

    Example:
        >>> sampler = StratifiedBatchSampler([8], counts=lambda step: (2,), num_steps=4)
        >>> loader = ResumableDataLoader(list(range(8)), batch_size=None, sampler=sampler)
        >>> loader.state_dict()
        {'step': 0, 'drawn': [0]}
    """

    sampler: StratifiedBatchSampler

    def __init__(self, *args: Any, device: torch.device = torch.device("cpu"), **kwargs: Any) -> None:  # noqa: B008
        super().__init__(*args, **kwargs)
        self.device = device

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch promises its own class of iterator
        for batch in copy_ahead(super().__iter__(), self.device):
            self.sampler.step += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the sampler."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of the sampler."""
        self.sampler.load_state_dict(state)


def ignore_external_sigterm(_worker: int) -> None:
    """Let a worker process react to SIGTERM from its parent only; for ``DataLoader(worker_init_fn=...)``.

    Schedulers and shells send SIGTERM to all processes of a run, but training needs batches until it stops by itself.
    SIGTERM from the parent must still work: it terminates blocked workers. Only Linux says who sent a signal.
    """
    if not hasattr(signal, "sigwaitinfo"):
        return
    parent = multiprocessing.parent_process()
    assert parent is not None, "workers have a parent process"

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
            pass
        os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=wait, daemon=True).start()
