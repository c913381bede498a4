import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from synth2_lightning.checkpoints import CheckedCheckpointIO, find_last_checkpoint, run_folders
from synth2_lightning.weight_files import find_damage


def save(folder: Path, step: int, name: str | None = None) -> Path:
    path = folder / (name or f"step={step}.ckpt")
    CheckedCheckpointIO().save_checkpoint({"global_step": step, "state_dict": {"w": torch.ones(500)}}, path)
    return path


def damage(path: Path, position: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position or len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_checkpoint_that_another_run_removed_meanwhile_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"step=15\.ckpt is gone.*one run at a time"):
        CheckedCheckpointIO().load_checkpoint(tmp_path / "step=15.ckpt")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "new" / "folder", 3)
    content = CheckedCheckpointIO().load_checkpoint(path)
    assert content["global_step"] == 3
    assert torch.equal(content["state_dict"]["w"], torch.ones(500))
    assert find_damage(path) is None
    assert [entry.name for entry in path.parent.iterdir()] == ["step=3.ckpt"]


def test_a_flipped_bit_of_a_weight_is_found_wherever_it_is(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    whole = path.read_bytes()
    start = whole.index(torch.ones(500).numpy().tobytes())
    for position in range(start, start + 2000, 97):
        damage(path, position)
        assert "does not have the checksum that was written with it" in str(find_damage(path))
        path.write_bytes(whole)


@pytest.mark.parametrize("length", [0, 1, 1000, -1])
def test_a_file_that_was_cut_is_damaged(length: int, tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    path.write_bytes(path.read_bytes()[:length])
    assert find_damage(path)


def test_a_damaged_checkpoint_is_refused_and_a_good_one_named(tmp_path: Path) -> None:
    good, bad = save(tmp_path, 3), save(tmp_path, 5)
    damage(bad)
    with pytest.raises(ValueError, match=r"is damaged: .*checksum.* Expected the file as it was written") as error:
        CheckedCheckpointIO().load_checkpoint(bad)
    assert str(bad) in str(error.value)
    assert f"Go on from {good}, of step 3." in str(error.value)
    good.unlink()
    with pytest.raises(ValueError, match="No good one lies beside it"):
        CheckedCheckpointIO().load_checkpoint(bad)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"global_step": Code()}, tmp_path / "code.ckpt")
    with pytest.raises(ValueError, match=r"code.ckpt holds more than .* may be code; nothing was run"):
        CheckedCheckpointIO().load_checkpoint(tmp_path / "code.ckpt")
    assert not (tmp_path / "ran").exists()


def test_the_most_steps_win_whatever_the_clock_said(tmp_path: Path) -> None:
    paths = [save(tmp_path, step) for step in (9, 10, 8)]
    for age, path in enumerate(paths):
        os.utime(
            path, (1_000_000 + age, 1_000_000 + age)
        )  # a clock that was put back: the oldest by its word is step 9
    os.utime(paths[1], (1, 1))
    assert find_last_checkpoint([tmp_path / "gone", tmp_path]) == paths[1]


def test_of_the_same_step_the_one_that_last_links_to_is_taken(tmp_path: Path) -> None:
    save(tmp_path, 9, "zzz.ckpt")
    last = save(tmp_path, 9)
    (tmp_path / "last.ckpt").symlink_to(last.name)
    assert find_last_checkpoint([tmp_path]) == last


def test_what_another_callback_saved_perhaps_in_the_middle_of_a_step_is_a_last_resort(tmp_path: Path) -> None:
    best = save(tmp_path, 9, "best-step=9.ckpt")
    assert find_last_checkpoint([tmp_path]) == best
    whole = save(tmp_path, 8)
    assert find_last_checkpoint([tmp_path]) == whole


def test_a_link_to_what_is_gone_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").symlink_to("step=9.ckpt")
    assert find_last_checkpoint([tmp_path]) is None


def test_a_damaged_newest_one_gives_way_to_the_newest_good_one(tmp_path: Path) -> None:
    good, bad = save(tmp_path, 8), save(tmp_path, 9)
    damage(bad)
    with pytest.warns(
        UserWarning, match=r"Damaged checkpoints: .*step=9.ckpt is damaged.*step=8.ckpt, of step 8, is used"
    ):
        assert find_last_checkpoint([tmp_path]) == good
    damage(good)
    with pytest.raises(ValueError, match=r"No checkpoint here can be gone on from: .*Bring one back from a copy"):
        find_last_checkpoint([tmp_path])


def test_a_folder_of_deepspeed_is_named_and_not_unpickled(tmp_path: Path) -> None:
    (tmp_path / "step=8.ckpt").mkdir()
    (tmp_path / "step=8.ckpt" / "latest").write_text("checkpoint")
    with pytest.raises(ValueError, match=r"step=8.ckpt is DeepSpeed's, which unpickles it: if it is yours, name it"):
        find_last_checkpoint([tmp_path])


def test_earlier_runs_are_searched_by_their_number(tmp_path: Path) -> None:
    for number in (2, 9, 10):
        save(tmp_path / f"version_{number}" / "checkpoints", 100 - number)
    (tmp_path / "version_x").mkdir()
    folders = run_folders(tmp_path / "version_11" / "checkpoints")
    assert [folder.parent.name for folder in folders] == ["version_11", "version_10", "version_9", "version_2"]
    assert find_last_checkpoint(folders) == tmp_path / "version_10" / "checkpoints" / "step=90.ckpt"


def test_a_full_disk_leaves_the_old_checkpoint_as_it_was(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    before = path.read_bytes()
    # In a process of its own: the limit on the size of files is one for all that it writes.
    code = (
        "import resource, signal, torch; from synth2_lightning.checkpoints import CheckedCheckpointIO\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, {resource.RLIM_INFINITY}))\n"
        f"CheckedCheckpointIO().save_checkpoint({{'global_step': 4, 'w': torch.ones(100_000)}}, {str(path)!r})\n"
    )
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert f"OSError: {path} cannot be written: " in failed.stderr
    assert "Expected a folder that may be written to, with room left" in failed.stderr
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"step=1.ckpt cannot be written: .*choose another folder"):
        save(tmp_path / "file", 1)


def test_a_kill_while_a_slow_share_takes_its_time_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    before = path.read_bytes()
    code = (
        "import os, time; from synth2_lightning.checkpoints import CheckedCheckpointIO\n"
        "os.fsync = lambda file: (print('written', flush=True), time.sleep(60))\n"
        f"CheckedCheckpointIO().save_checkpoint({{'global_step': 4}}, {str(path)!r})\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as slow:
        assert slow.stdout is not None
        assert slow.stdout.readline() == "written\n"
        slow.send_signal(signal.SIGKILL)
    assert path.read_bytes() == before
    assert find_last_checkpoint([tmp_path]) == path
