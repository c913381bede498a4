from pathlib import Path

import pytest

from synth2_lightning.files import write_atomically, write_files


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


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(OSError, match=r"file/name cannot be written: .* Expected a folder that may be written to"):
        write_atomically(tmp_path / "file" / "name", lambda draft: draft.write_text(""))


def test_files_take_their_places_together_beside_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "weights").write_text("old")
    with pytest.raises(UnicodeEncodeError), write_files(tmp_path) as draft:
        (draft / "weights").write_text("half \ud800", encoding="utf-8")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"mine.txt": "mine", "weights": "old"}
    with write_files(tmp_path) as draft:
        (draft / "weights").write_text("new")
        (draft / "weights").chmod(0o600)
        (draft / "config").write_text("new")
        assert (tmp_path / "weights").read_text() == "old"
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"mine.txt": "mine", "weights": "new", "config": "new"}
    assert (tmp_path / "weights").stat().st_mode & 0o777 == 0o644


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".draft").mkdir()
    (tmp_path / ".draft" / "weights").write_text("half")
    with write_files(tmp_path) as draft:
        (draft / "config").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(OSError, match=r"file/codebook cannot be written: .* Expected a folder that may be written to"),
        write_files(tmp_path / "file" / "codebook"),
    ):
        pass
