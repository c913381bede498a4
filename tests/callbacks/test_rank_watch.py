import os
import re
import sys
from typing import Any, cast

import pytest
from torch._C._distributed_c10d import HashStore

from synth2_lightning.callbacks.rank_watch import RankWatchCallback, _Watch

# The replaced exit raises in the heartbeat thread, instead of ending the process.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(os, "_exit", lambda code: sys.exit(code))  # ends the heartbeat thread only
    store = HashStore()
    store.set("1", "0")
    return store


def watch(store: Any, rank: int = 0) -> _Watch:
    return _Watch(store, rank, world_size=2, timeout=0.5, interval=0.05)


def test_a_process_without_heartbeats_is_named_and_the_others_stop(
    store: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    thread = watch(store)
    thread.start()
    thread.join(timeout=20)
    assert not thread.is_alive()
    error = capsys.readouterr().err
    assert re.match(r"error: Process 1 of 2\b.*\b0\.5 s\b", error)
    assert re.search(r"Process 0\b.*--ckpt_path", error, re.DOTALL)


def test_a_process_that_failed_is_named_with_its_reason(store: Any, capsys: pytest.CaptureFixture[str]) -> None:
    store.set("1", "failed: MemoryError: 3 GB")
    thread = watch(store)
    thread.start()
    thread.join(timeout=20)
    assert re.search(r"Process 1 of 2\b.*failed: MemoryError: 3 GB", capsys.readouterr().err)


def test_processes_that_send_heartbeats_or_are_done_are_not_stopped(store: Any) -> None:
    first, second = watch(store), watch(store, rank=1)
    first.start()
    second.start()
    second.join(timeout=0.7)
    assert first.is_alive()
    second.end("done")
    first.join(timeout=1.0)
    assert first.is_alive()
    first.end("done")
    assert store.get("0") == b"done"


def test_a_lost_store_means_that_rank_0_is_lost(store: Any, capsys: pytest.CaptureFixture[str]) -> None:
    thread = watch(store, rank=1)

    class GoneStore:
        def set(self, *_: str) -> None:
            raise RuntimeError("Broken pipe")

    thread._beats = cast(Any, GoneStore())
    thread.start()
    thread.join(timeout=20)
    assert "error: Process 0 of 2" in capsys.readouterr().err


def test_a_timeout_of_few_heartbeats_is_refused() -> None:
    with pytest.raises(ValueError, match=r"timeout=3\.0.*interval=1\.0"):
        RankWatchCallback(timeout=3.0)
