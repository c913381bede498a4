import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from synth2_lightning.io.atomic import write_atomically
from synth2_lightning.io.locks import lock_file, lock_folder


def test_a_second_writer_is_refused_with_the_number_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for lock, names in ((lock_file, ("file", "link", "gone")), (lock_folder, (".", "new"))):
        for name in names:
            with (
                lock(tmp_path / name),
                pytest.raises(BlockingIOError, match=rf"process {os.getpid()}\b.*since"),
                lock(tmp_path / name, seconds=0.0),
            ):
                pass
    with (
        lock_file(tmp_path / "file"),
        pytest.raises(BlockingIOError, match=r"\blink\b.*process \d+"),
        lock_file(tmp_path / "link", seconds=0.0),
    ):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


_HOLDER = """
import os, sys
from pathlib import Path
from synth2_lightning.io.locks import lock_file
with lock_file(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_outlasts_a_stop_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    command = [sys.executable, "-c", _HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            holder.send_signal(signal.SIGSTOP)
            with pytest.raises(BlockingIOError, match=f"process {holder.pid} "), lock_file(path, seconds=0.1):
                pass
        finally:
            holder.kill()
    assert (tmp_path / ".captions.jsonl.lock").exists()
    with lock_file(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_forked_worker_does_not_keep_the_lock_of_a_run_that_was_killed(tmp_path: Path) -> None:
    code = _HOLDER.replace("    print", "    if os.fork(): os._exit(9)\n    print")
    command = [sys.executable, "-c", code, str(tmp_path / "a")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "held\n"
        assert run.wait(60) == 9
        with lock_file(tmp_path / "a"):
            pass


def test_a_file_system_without_locks_is_warned_of_and_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", fail)
    with pytest.warns(UserWarning, match=r"\bfile\b.*No locks available"):
        write_atomically(tmp_path / "file", lambda draft: draft.write_text("new"))
    assert (tmp_path / "file").read_text() == "new"
