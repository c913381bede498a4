"""Detection of lost processes by heartbeats."""

import os
import sys
import threading
import time
from datetime import timedelta

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed.distributed_c10d import PrefixStore, Store

from synth2_lightning.compat.torch import clone_default_store
from synth2_lightning.io.console import visible

_NUM_MISSED = 3  # heartbeats, to find the lost process after a connection broke
_DONE, _FAILED = "done", "failed: "


class RankWatchCallback(Callback):
    """Stops all processes of a run when one is lost, and names the lost one.

    Every process writes heartbeats to the store of the default process group, which rank 0 hosts. Without this callback
    the others wait in a collective call until the process group's timeout (30 minutes, or the strategy's ``timeout``),
    and the error message names an operation instead of a process.

    Args:
        timeout: Seconds without a heartbeat after which a process is considered lost.
        interval: Seconds between two heartbeats.

    Raises:
        ValueError: If the timeout is not above three intervals.
        ConnectionError: On every remaining process, when the connection to another one breaks.

    Example:
        >>> RankWatchCallback(timeout=120).interval
        1.0
    """

    def __init__(self, timeout: float = 60.0, interval: float = 1.0) -> None:
        if not 0 < _NUM_MISSED * interval < timeout:
            raise ValueError(
                f"RankWatchCallback got timeout={timeout} and interval={interval}; expected a timeout above "
                f"{_NUM_MISSED} intervals, and an interval above 0 seconds."
            )
        self.timeout = timeout
        self.interval = interval
        self._watch: _Watch | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Run before a stage: starts the heartbeat thread."""
        if self._watch is not None or trainer.world_size == 1 or not dist.is_initialized():
            return
        store = clone_default_store()
        store.set_timeout(timedelta(seconds=self.timeout))
        beats = PrefixStore("heartbeats", store)
        self._watch = _Watch(beats, trainer.global_rank, trainer.world_size, self.timeout, self.interval)
        trainer.strategy.barrier("first heartbeats")  # multi_get would wait for a missing key
        self._watch.start()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Run at an error: publishes it; after a broken connection, raises an error that names the lost process."""
        if self._watch is None:
            return
        if isinstance(exception, RuntimeError) and _is_broken_connection(str(exception)):
            time.sleep((_NUM_MISSED + 1) * self.interval)
            raise ConnectionError(self._watch.explain_missing(_NUM_MISSED * self.interval)) from exception
        self._watch.end(f"{_FAILED}{type(exception).__name__}: {str(exception)[:200]}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Run after a stage: stops the heartbeats once all processes have ended."""
        if self._watch is None:
            return
        trainer.strategy.barrier("no more heartbeats")
        self._watch.end(_DONE)
        trainer.strategy.barrier("the store is not needed anymore")
        self._watch = None


class _Watch(threading.Thread):
    def __init__(self, beats: Store, rank: int, world_size: int, timeout: float, interval: float) -> None:
        super().__init__(name="rank-watch", daemon=True)
        self.rank, self.timeout, self.interval = rank, timeout, interval
        self._beats = beats
        self._ended = threading.Event()
        self._last = {rank: ("", time.monotonic()) for rank in range(world_size)}
        self._is_store_lost = False
        self._beats.set(str(rank), "0")

    def run(self) -> None:
        """Write and read heartbeats until :meth:`end`."""
        number = 0
        while not self._ended.wait(self.interval):
            number += 1
            try:
                self._beats.set(str(self.rank), str(number))
                beats = [beat.decode() for beat in self._beats.multi_get(list(map(str, self._last)))]
            except RuntimeError:  # from torch's store: rank 0 is lost
                self._is_store_lost = True
                beats = [beat for beat, _ in self._last.values()]
            now = time.monotonic()
            for rank, beat in enumerate(beats):
                if beat != self._last[rank][0] or beat == _DONE:
                    self._last[rank] = (beat, now)
            if self.missing_ranks(self.timeout) and not self._ended.is_set():
                # The main thread is blocked in a collective call, where it cannot get an exception.
                sys.stderr.write(visible(f"error: {self.explain_missing(self.timeout)}\n"))
                sys.stderr.flush()
                os._exit(1)

    def end(self, beat: str) -> None:
        """Stop the thread and write a last heartbeat."""
        self._ended.set()
        if self.is_alive():
            self.join()
        try:
            self._beats.set(str(self.rank), beat)
        except RuntimeError:
            self._is_store_lost = True

    def missing_ranks(self, timeout: float) -> list[int]:
        """Return the other ranks without a new heartbeat for ``timeout`` seconds."""
        now = time.monotonic()
        others = {rank: since for rank, (_, since) in self._last.items() if rank != self.rank}
        if self._is_store_lost:  # on rank 0; the state of the others is unknown
            others = {0: others[0]} if self.rank else {}
        return [rank for rank, since in others.items() if now - since > timeout]

    def explain_missing(self, timeout: float) -> str:
        """Return an error message that names the lost processes."""
        missing = self.missing_ranks(timeout)
        beats = {rank: self._last[rank][0] for rank in missing}
        reasons = [f"process {rank} {beat}" for rank, beat in beats.items() if beat.startswith(_FAILED)]
        lost = f"Process {', '.join(map(str, missing))}" if missing else "A process that still sends heartbeats"
        reason = f" ({'; '.join(reasons)})" if reasons else ""
        return (
            f"{lost} of {len(self._last)} is lost or blocked{reason}: no heartbeat for {timeout:g} s, expected one "
            f"every {self.interval:g} s. Process {self.rank} stops to avoid a deadlock. Check the end of the lost "
            "process's output and its machine's memory, then resume from the last checkpoint (--ckpt_path)."
        )


def _is_broken_connection(text: str) -> bool:
    return any(phrase in text for phrase in ("Connection closed by peer", "Connection reset by peer", "NCCL", "gloo"))
