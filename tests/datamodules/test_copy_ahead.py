"""Copies to a GPU with stand-ins for CUDA streams: the calls and their order."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from synth2_lightning.datamodules.copy_ahead import copy_ahead
from synth2_lightning.datamodules.loader import ResumableDataLoader
from synth2_lightning.datamodules.sampling import StratifiedBatchSampler
from synth2_lightning.testing import tiny_batch

GPU = torch.device("cuda")


class Batch:
    def __init__(self, number: int, calls: list[str]) -> None:
        self.number, self.calls = number, calls

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        assert device == GPU
        assert non_blocking
        self.calls.append(f"copy {self.number}")
        return self


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the recorded calls of the streams, in order."""
    calls: list[str] = []
    computation = Mock(wait_event=lambda event: calls.append(f"compute after {event}"))

    def record_event() -> str:
        return calls[-1]

    copies = Mock(wait_stream=lambda stream: calls.append("wait" if stream is computation else "?"))
    copies.record_event = record_event

    @contextmanager
    def run_on(stream: Any) -> Iterator[None]:
        assert stream is copies
        yield

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: copies)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computation)
    monkeypatch.setattr(torch.cuda, "stream", run_on)
    return calls


def test_a_batch_is_copied_before_the_one_before_it_is_used(calls: list[str]) -> None:
    batches: Any = [Batch(number, calls) for number in range(3)]
    calls.extend(f"use {batch.number}" for batch in copy_ahead(batches, GPU))
    assert calls == [
        *("wait", "copy 0", "wait", "copy 1", "compute after copy 0", "use 0"),
        *("wait", "copy 2", "compute after copy 1", "use 1", "compute after copy 2", "use 2"),
    ]


@pytest.mark.parametrize("num_batches", [0, 1])
def test_few_batches(num_batches: int, calls: list[str]) -> None:
    batches: Any = [Batch(number, calls) for number in range(num_batches)]
    assert [batch.number for batch in copy_ahead(batches, GPU)] == list(range(num_batches))


def test_a_batch_that_was_copied_ahead_is_not_counted(calls: list[str]) -> None:
    sampler = StratifiedBatchSampler([8], counts=lambda step: (2,), num_steps=4)
    items: Any = Mock(__getitem__=lambda self, indices: Batch(indices[0], calls), __len__=lambda self: 8)
    loader = ResumableDataLoader(items, batch_size=None, sampler=sampler, collate_fn=lambda batch: batch, device=GPU)
    taken = iter(loader)
    next(taken)
    assert sum("copy" in call and "after" not in call for call in calls) == 2
    assert loader.state_dict()["step"] == 1
    resumed = ResumableDataLoader(
        items, batch_size=None, sampler=StratifiedBatchSampler([8], counts=lambda step: (2,), num_steps=4),
        collate_fn=lambda batch: batch, device=GPU,
    )  # fmt: skip
    resumed.load_state_dict(loader.state_dict())
    assert next(iter(resumed)).number == next(taken).number  # type: ignore[attr-defined]


def test_on_a_cpu_batches_are_neither_copied_nor_read_ahead() -> None:
    read = []

    def batches() -> Iterator[Any]:
        for seed in range(2):
            read.append(seed)
            yield tiny_batch(seed=seed)

    next(copy_ahead(batches(), torch.device("cpu")))
    assert read == [0]
