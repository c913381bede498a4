"""Stops a run of several processes when one of them is gone, and says which."""

import os
import sys
import threading
import time
from datetime import timedelta

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store

from synth2_lightning.console import visible

_BEATS_MISSED = 3  # after a connection broke: then somebody is gone, and it is only asked who
_DONE, _FAILED = "done", "failed: "


class RankWatchCallback(Callback):
    """Has every process give signs of life, so that none waits for ever for one that is gone.

    Without it the others wait in a collective call until the process group's timeout (30 minutes, unless the strategy's
    ``timeout`` says otherwise), and the message names an operation, not a process. The signs go through the store in
    which the processes met (the first of them keeps it), so they need no network of their own.

    Args:
        timeout: Seconds without a sign of life after which a process is taken for gone.
        interval: Seconds between two signs.

    Raises:
        ValueError: If the timeout is not above three intervals.
        ConnectionError: On every process that is left, when the connection to another one breaks.

    Example:
        >>> RankWatchCallback(timeout=120).interval
        1.0
    """

    def __init__(self, timeout: float = 60.0, interval: float = 1.0) -> None:
        if not 0 < _BEATS_MISSED * interval < timeout:
            raise ValueError(
                f"RankWatchCallback got timeout={timeout} and interval={interval}; expected a timeout above "
                f"{_BEATS_MISSED} intervals, and an interval above 0 seconds."
            )
        self.timeout = timeout
        self.interval = interval
        self._watch: _Watch | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to give signs, and to look for those of others."""
        if self._watch is not None or trainer.world_size == 1 or not dist.is_initialized():
            return
        store = _get_default_store().clone()
        store.set_timeout(timedelta(seconds=self.timeout))
        signs = PrefixStore("signs of life", store)
        self._watch = _Watch(signs, trainer.global_rank, trainer.world_size, self.timeout, self.interval)
        trainer.strategy.barrier("signs of life")  # nobody looks for a sign before it is there
        self._watch.start()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tell the others why this process ends; where a connection broke, say who is gone."""
        if self._watch is None:
            return
        if isinstance(exception, RuntimeError) and _is_broken_connection(str(exception)):
            time.sleep((_BEATS_MISSED + 1) * self.interval)
            raise ConnectionError(self._watch.tell_missing(_BEATS_MISSED * self.interval)) from exception
        self._watch.end(f"{_FAILED}{type(exception).__name__}: {str(exception)[:200]}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End when all have come so far."""
        if self._watch is None:
            return
        trainer.strategy.barrier("no more signs of life")
        self._watch.end(_DONE)
        trainer.strategy.barrier("the store is not needed any more")
        self._watch = None


class _Watch(threading.Thread):
    def __init__(self, signs: Store, rank: int, world_size: int, timeout: float, interval: float) -> None:
        super().__init__(name="rank-watch", daemon=True)
        self.rank, self.timeout, self.interval = rank, timeout, interval
        self._signs = signs
        self._ended = threading.Event()
        self._last = {rank: ("", time.monotonic()) for rank in range(world_size)}
        self._store_is_gone = False
        self._signs.set(str(rank), "0")

    def run(self) -> None:
        """Give signs and look for those of others, until told to end."""
        number = 0
        while not self._ended.wait(self.interval):
            number += 1
            try:
                self._signs.set(str(self.rank), str(number))
                seen = [sign.decode() for sign in self._signs.multi_get(list(map(str, self._last)))]
            except RuntimeError:  # of torch's store, whose process is gone
                self._store_is_gone = True
                seen = [sign for sign, _ in self._last.values()]
            now = time.monotonic()
            for rank, sign in enumerate(seen):
                if sign != self._last[rank][0] or sign == _DONE:
                    self._last[rank] = (sign, now)
            if self.list_missing(self.timeout) and not self._ended.is_set():
                # The main thread waits in a collective call, which no exception reaches.
                sys.stderr.write(visible(f"error: {self.tell_missing(self.timeout)}\n"))
                sys.stderr.flush()
                os._exit(1)

    def end(self, sign: str) -> None:
        """Give the last sign."""
        self._ended.set()
        if self.is_alive():
            self.join()
        try:
            self._signs.set(str(self.rank), sign)
        except RuntimeError:
            self._store_is_gone = True

    def list_missing(self, patience: float) -> list[int]:
        """Processes without a new sign for so many seconds."""
        now = time.monotonic()
        others = {rank: since for rank, (_, since) in self._last.items() if rank != self.rank}
        if self._store_is_gone:  # by the first process; of the others nothing is known
            others = {0: others[0]} if self.rank else {}
        return [rank for rank, since in others.items() if now - since > patience]

    def tell_missing(self, patience: float) -> str:
        """What happened, what was expected, and the way out."""
        missing = self.list_missing(patience)
        signs = {rank: self._last[rank][0] for rank in missing}
        reasons = [f"process {rank} {sign}" for rank, sign in signs.items() if sign.startswith(_FAILED)]
        who = f"Process {', '.join(map(str, missing))}" if missing else "A process that still gives signs of life"
        why = f" ({'; '.join(reasons)})" if reasons else ""
        return (
            f"{who} of {len(self._last)} is gone or stands still{why}: no sign of life for {patience:g} s, expected "
            f"one every {self.interval:g} s. Process {self.rank} stops, because it would wait for ever. Look at the "
            "end of that process' output, and at its machine's memory; go on from the last checkpoint (--ckpt_path)."
        )


def _is_broken_connection(text: str) -> bool:
    return any(sign in text for sign in ("Connection closed by peer", "Connection reset by peer", "NCCL", "gloo"))
