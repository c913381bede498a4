import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from synth2_lightning.export.component_files import copy_files
from synth2_lightning.io.atomic import complete_folder, write_atomically, write_files
from synth2_lightning.io.safetensors import write_safetensors


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, lambda draft: draft.write_text("old"))

    def fail(draft: Path) -> None:
        draft.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_links_in_a_downloaded_folder_lead_to_no_other_file(tmp_path: Path) -> None:
    folder, victim = tmp_path / "downloaded", tmp_path / "victim"
    folder.mkdir()
    victim.mkdir()
    (victim / "file").write_text("mine")
    (folder / "card.json.tmp").symlink_to(victim / "file")
    write_atomically(folder / "card.json", lambda draft: draft.write_text("new"))
    assert (folder / "card.json").read_text() == "new"
    assert not (folder / "card.json").is_symlink()
    (folder / ".replacement").symlink_to(victim)
    (folder / ".draft").symlink_to(victim)
    assert complete_folder(folder) == folder
    with write_files(folder) as draft:
        (draft / "config").write_text("new")
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "config"]
    assert [path.read_text() for path in victim.iterdir()] == ["mine"]


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(OSError, match=r"file/name.*[Ee]xpected a folder"):
        write_atomically(tmp_path / "file" / "name", lambda draft: draft.write_text(""))


def test_files_take_their_places_together_beside_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "weights").write_text("old")
    with pytest.raises(UnicodeEncodeError), write_files(tmp_path) as draft:
        (draft / "weights").write_text("half \ud800", encoding="utf-8")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"mine.txt": "mine", "weights": "old"}
    with write_files(tmp_path) as draft:
        (draft / "weights").write_text("new")
        (draft / "config").write_text("new")
        assert (tmp_path / "weights").read_text() == "old"
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"mine.txt": "mine", "weights": "new", "config": "new"}


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_new_files_have_the_permissions_of_the_umask_and_not_of_their_writer(tmp_path: Path, umask: int) -> None:
    def write_for_all(draft: Path) -> None:
        draft.write_text("new")
        draft.chmod(0o666)

    write_atomically(tmp_path / "table", write_for_all)
    with write_files(tmp_path) as draft:
        save_file({"weight": torch.ones(2)}, draft / "weights")
        write_for_all(draft / "config")
    write_safetensors({"weight": torch.ones(2)}, tmp_path / "alone")
    assert {path.name: mode_of(path) for path in tmp_path.iterdir()} == dict.fromkeys(
        ("table", "weights", "config", "alone"), 0o666 & ~umask
    )


def test_a_file_that_replaces_another_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "mine").touch(0o640)
    write_atomically(tmp_path / "mine", lambda draft: draft.write_text("new"))
    assert mode_of(tmp_path / "mine") == 0o640


def test_what_an_export_copies_has_the_permissions_of_the_umask(tmp_path: Path, umask: int) -> None:
    words = tmp_path / "words" / "inner"
    words.mkdir(parents=True)
    (words / "tokenizer.json").write_text("{}")
    for path in (words, words.parent):
        path.chmod(0o755)
    (words / "tokenizer.json").chmod(0o640)
    copy_files({"tokenizer": str(words.parent)}, (), tmp_path / "export")
    copy_files({"table": str(words / "tokenizer.json")}, (), tmp_path / "export")
    copied = [tmp_path / "export", *(tmp_path / "export").rglob("*")]
    assert {mode_of(path) for path in copied if path.is_dir()} == {0o777 & ~umask}
    assert [mode_of(path) for path in copied if path.is_file()] == [0o666 & ~umask] * 2


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".draft").mkdir()
    (tmp_path / ".draft" / "weights").write_text("half")
    with write_files(tmp_path) as draft:
        (draft / "config").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(OSError, match=r"file/codebook.*[Ee]xpected a folder"),
        write_files(tmp_path / "file" / "codebook"),
    ):
        pass


_KILLED_AT_EVERY_STEP = """
import os, shutil, sys
from pathlib import Path
from synth2_lightning.io.atomic import complete_folder, write_files

folder = Path(sys.argv[1])
CHANGES = ("os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "shutil.rmtree")

def write(text, names):
    with write_files(folder, replaced=["card"]) as draft:
        for name in names:
            (draft / name).parent.mkdir(exist_ok=True)
            (draft / name).write_text(text)

def read(place):
    return {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}

def die_at(number):
    count = 0
    def hook(event, args):
        nonlocal count
        if event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & os.O_CREAT):
            count += 1
            if count == number:
                os._exit(9)
    sys.addaudithook(hook)

number, seen = 0, set()
while True:
    shutil.rmtree(folder, ignore_errors=True)
    write("old", ["config", "weights", "card", "files/words"])
    (folder / "notes").write_text("mine")
    number += 1
    pid = os.fork()
    if not pid:
        die_at(number)
        write("new", ["config", "weights", "files/others"])
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    place = complete_folder(folder)
    found = {name: text for name, text in read(place).items() if not name.startswith(".") and name != "notes"}
    assert found in (
        {"config": "old", "weights": "old", "card": "old", "files/words": "old"},
        {"config": "new", "weights": "new", "files/others": "new"},
    ), (number, found)
    assert (folder / "config").exists(), number
    seen.add(found["config"])
    write("next", ["config"])
    assert read(folder)["config"] == "next" and read(folder)["notes"] == "mine"
    assert not any(name.startswith(".") for name in read(folder)), (number, read(folder))
    if code == 0:
        break
print(number, sorted(seen))
"""


def test_a_kill_at_any_step_leaves_all_old_files_or_all_new_ones(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", _KILLED_AT_EVERY_STEP, str(tmp_path / "folder")], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    number, seen = found.stdout.split(maxsplit=1)
    assert int(number) > 20
    assert seen.strip() == "['new', 'old']"
