import os
import sys
from typing import Any, cast

import pytest
from torch._C._distributed_c10d import HashStore

from synth2_lightning.callbacks.rank_watch import RankWatchCallback, _Watch

# Where the process would end, its watching thread does.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(os, "_exit", lambda code: sys.exit(code))  # of the watching thread alone
    store = HashStore()
    store.set("1", "0")
    return store


def watch(store: Any, rank: int = 0) -> _Watch:
    return _Watch(store, rank, world_size=2, timeout=0.5, interval=0.05)


def test_a_process_without_signs_of_life_is_named_and_the_others_stop(
    store: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    thread = watch(store)
    thread.start()
    thread.join(timeout=20)
    assert not thread.is_alive()
    told = capsys.readouterr().err
    assert told.startswith(
        "error: Process 1 of 2 is gone or stands still: no sign of life for 0.5 s, expected one every"
    )
    assert "Process 0 stops, because it would wait for ever" in told
    assert "go on from the last checkpoint (--ckpt_path)" in told


def test_a_process_that_failed_is_named_with_its_reason(store: Any, capsys: pytest.CaptureFixture[str]) -> None:
    store.set("1", "failed: MemoryError: no room")
    thread = watch(store)
    thread.start()
    thread.join(timeout=20)
    assert "Process 1 of 2 is gone or stands still (process 1 failed: MemoryError: no room)" in capsys.readouterr().err


def test_processes_that_give_signs_or_are_done_are_left_alone(store: Any) -> None:
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


def test_a_store_that_is_gone_means_the_first_process(store: Any, capsys: pytest.CaptureFixture[str]) -> None:
    thread = watch(store, rank=1)

    class GoneStore:
        def set(self, *_: str) -> None:
            raise RuntimeError("Broken pipe")

    thread._signs = cast(Any, GoneStore())
    thread.start()
    thread.join(timeout=20)
    assert "error: Process 0 of 2 is gone" in capsys.readouterr().err


def test_a_timeout_of_few_signs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"timeout=3.0 and interval=1.0; expected a timeout above 3 intervals"):
        RankWatchCallback(timeout=3.0)
