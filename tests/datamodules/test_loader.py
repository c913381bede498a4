import copy
import multiprocessing
import os
import subprocess
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from synth2_lightning.datamodules.loader import ResumableDataLoader, ignore_external_sigterm
from synth2_lightning.datamodules.pairs import BatchDataset
from synth2_lightning.datamodules.sampling import StratifiedBatchSampler
from synth2_lightning.types import ImageTextBatch, Pixels, SampleInfo


class NumberPairs(BatchDataset):
    def __len__(self) -> int:
        return 20

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        keys = tuple(str(index) for index in indices)
        return ImageTextBatch(
            Pixels(torch.zeros(len(keys), 3, 1, 1, dtype=torch.uint8)),
            keys,
            tuple(SampleInfo(key, key) for key in keys),
        )


def make(num_workers: int) -> ResumableDataLoader:
    sampler = StratifiedBatchSampler([20], lambda step: (3,), num_steps=6)
    return ResumableDataLoader(NumberPairs(), batch_size=None, sampler=sampler, num_workers=num_workers)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resume_gives_the_next_batch(num_workers: int) -> None:
    straight = make(num_workers=0)
    expected = [batch.keys for _ in range(2) for batch in straight]
    stopped = make(num_workers)
    assert [batch.keys for batch in islice(stopped, 4)] == expected[:4]
    state = copy.deepcopy(stopped.state_dict())

    resumed = make(num_workers)
    resumed.load_state_dict(state)
    assert state == {"step": 4, "drawn": [12]}  # batches that the workers read ahead do not count
    assert [batch.keys for batch in resumed] == expected[4:10]
    assert resumed.state_dict() == {"step": 10, "drawn": [30]}


def test_the_state_counts_the_batch_in_hand() -> None:
    loader = make(num_workers=0)

    assert [loader.state_dict()["step"] for _ in loader] == [1, 2, 3, 4, 5, 6]


def test_workers_outlive_the_sigterm_that_all_processes_get() -> None:
    sampler = StratifiedBatchSampler([20], lambda step: (3,), num_steps=6)
    loader = ResumableDataLoader(
        NumberPairs(), batch_size=None, sampler=sampler, num_workers=1, worker_init_fn=ignore_external_sigterm
    )
    batches = iter(loader)
    next(batches)
    (child,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    subprocess.run(["kill", "-TERM", child], check=True)  # sent by another process
    assert len(list(batches)) == 5


def test_workers_end_by_the_sigterm_of_their_own_process() -> None:
    def work(ready: Any) -> None:
        ignore_external_sigterm(0)
        ready.set()
        time.sleep(60)

    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=work, args=(ready,))
    worker.start()
    assert ready.wait(30)
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0
