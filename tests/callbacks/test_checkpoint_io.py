import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from synth2_lightning.callbacks.checkpoint_io import CheckedCheckpointIO, find_checkpoint_to_resume, run_folders
from synth2_lightning.io.checkpoint_files import find_damage


def find_last_checkpoint(folders: Iterable[Path]) -> Path | None:
    found = find_checkpoint_to_resume(folders, lambda content: [])
    return found and found[0]


def save(folder: Path, step: int, name: str | None = None) -> Path:
    path = folder / (name or f"step={step}.ckpt")
    CheckedCheckpointIO().save_checkpoint({"global_step": step, "state_dict": {"w": torch.ones(500)}}, path)
    return path


def damage(path: Path, position: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position or len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_checkpoint_that_another_run_removed_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"step=15\.ckpt.*\bexist\b.*another run"):
        CheckedCheckpointIO().load_checkpoint(tmp_path / "step=15.ckpt")


def test_a_saved_checkpoint_is_loaded(tmp_path: Path) -> None:
    path = save(tmp_path / "new" / "folder", 3)
    content = CheckedCheckpointIO().load_checkpoint(path)
    assert content["global_step"] == 3
    assert torch.equal(content["state_dict"]["w"], torch.ones(500))
    assert find_damage(path) is None
    assert [entry.name for entry in path.parent.iterdir()] == ["step=3.ckpt"]


def test_a_flipped_bit_of_a_weight_is_detected(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    whole = path.read_bytes()
    start = whole.index(torch.ones(500).numpy().tobytes())
    for position in range(start, start + 2000, 97):
        damage(path, position)
        assert "checksum" in str(find_damage(path))
        path.write_bytes(whole)


@pytest.mark.parametrize("length", [0, 1, 1000, -1])
def test_a_truncated_file_is_damaged(length: int, tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    path.write_bytes(path.read_bytes()[:length])
    assert find_damage(path)


def test_a_damaged_checkpoint_is_refused_and_a_valid_one_named(tmp_path: Path) -> None:
    good, bad = save(tmp_path, 3), save(tmp_path, 5)
    damage(bad)
    with pytest.raises(ValueError, match=r"damaged.*checksum") as error:
        CheckedCheckpointIO().load_checkpoint(bad)
    assert str(bad) in str(error.value)
    assert str(good) in str(error.value)
    good.unlink()
    with pytest.raises(ValueError, match=r"[Nn]o good"):
        CheckedCheckpointIO().load_checkpoint(bad)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"global_step": Code()}, tmp_path / "code.ckpt")
    with pytest.raises(ValueError, match=r"code\.ckpt.* \bcode\b"):
        CheckedCheckpointIO().load_checkpoint(tmp_path / "code.ckpt")
    assert not (tmp_path / "ran").exists()


def test_the_checkpoint_with_the_most_steps_is_chosen_for_any_file_times(tmp_path: Path) -> None:
    paths = [save(tmp_path, step) for step in (9, 10, 8)]
    for age, path in enumerate(paths):
        os.utime(path, (1_000_000 + age, 1_000_000 + age))  # the clock was set back: by time, step 9 is the oldest
    os.utime(paths[1], (1, 1))
    assert find_last_checkpoint([tmp_path / "gone", tmp_path]) == paths[1]


def test_of_the_same_step_the_target_of_last_is_preferred(tmp_path: Path) -> None:
    save(tmp_path, 9, "zzz.ckpt")
    last = save(tmp_path, 9)
    (tmp_path / "last.ckpt").symlink_to(last.name)
    assert find_last_checkpoint([tmp_path]) == last


def test_checkpoints_of_other_callbacks_come_last(tmp_path: Path) -> None:
    best = save(tmp_path, 9, "best-step=9.ckpt")
    assert find_last_checkpoint([tmp_path]) == best
    whole = save(tmp_path, 8)
    assert find_last_checkpoint([tmp_path]) == whole


def test_a_broken_link_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").symlink_to("step=9.ckpt")
    assert find_last_checkpoint([tmp_path]) is None


def test_the_newest_valid_one_replaces_a_damaged_newest_one(tmp_path: Path) -> None:
    good, bad = save(tmp_path, 8), save(tmp_path, 9)
    damage(bad)
    with pytest.warns(UserWarning, match=r"[Dd]amaged.*step=9\.ckpt.*step=8\.ckpt"):
        assert find_last_checkpoint([tmp_path]) == good
    damage(good)
    with pytest.raises(ValueError, match=r"[Nn]o checkpoint\b.*step=.*damaged"):
        find_last_checkpoint([tmp_path])


def test_a_folder_of_deepspeed_is_named_and_not_unpickled(tmp_path: Path) -> None:
    (tmp_path / "step=8.ckpt").mkdir()
    (tmp_path / "step=8.ckpt" / "latest").write_text("checkpoint")
    with pytest.raises(ValueError, match=r"step=8\.ckpt.*DeepSpeed.*unpickle"):
        find_last_checkpoint([tmp_path])


def test_earlier_runs_are_searched_by_their_number(tmp_path: Path) -> None:
    for number in (2, 9, 10):
        save(tmp_path / f"version_{number}" / "checkpoints", 100 - number)
    (tmp_path / "version_x").mkdir()
    folders = run_folders(tmp_path / "version_11" / "checkpoints")
    assert [folder.parent.name for folder in folders] == ["version_11", "version_10", "version_9", "version_2"]
    assert find_last_checkpoint(folders) == tmp_path / "version_10" / "checkpoints" / "step=90.ckpt"


@contextmanager
def small_files_only(size: int) -> Iterator[None]:
    """Limit the size of the files that this process writes; larger writes fail, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_does_not_change_the_old_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    before = path.read_bytes()
    with small_files_only(20_000), pytest.raises(OSError, match="xpected a folder") as failed:
        CheckedCheckpointIO().save_checkpoint({"global_step": 4, "w": torch.ones(100_000)}, path)
    assert str(failed.value).startswith(f"{path} ")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"step=1\.ckpt.*written.*folder"):
        save(tmp_path / "file", 1)


def test_the_old_checkpoint_is_there_until_the_new_one_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, 3)
    before = path.read_bytes()
    found: list[tuple[bytes, Path | None]] = []
    monkeypatch.setattr(os, "fsync", lambda file: found.append((path.read_bytes(), find_last_checkpoint([tmp_path]))))
    CheckedCheckpointIO().save_checkpoint({"global_step": 4}, path)
    assert found[0] == (before, path)


@pytest.mark.slow
def test_a_kill_during_a_slow_write_does_not_change_the_old_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    before = path.read_bytes()
    code = (
        "import os, time; from synth2_lightning.callbacks.checkpoint_io import CheckedCheckpointIO\n"
        "os.fsync = lambda file: (print('written', flush=True), time.sleep(60))\n"
        f"CheckedCheckpointIO().save_checkpoint({{'global_step': 4}}, {str(path)!r})\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as slow:
        assert slow.stdout is not None
        assert slow.stdout.readline() == "written\n"
        slow.send_signal(signal.SIGKILL)
    assert path.read_bytes() == before
    assert find_last_checkpoint([tmp_path]) == path
