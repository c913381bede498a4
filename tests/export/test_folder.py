from pathlib import Path

import pytest

from synth2_lightning.export.folder import check_replaceable, is_exported


def test_what_a_killed_writer_left_is_no_foreign_content(tmp_path: Path) -> None:
    for name in (".draft", ".replacement"):
        (tmp_path / name).mkdir()
    (tmp_path / ".lock").touch()
    check_replaceable(tmp_path)
    (tmp_path / ".replacement" / "config.json").write_text('{"format": "synth2-lightning captioner"}')
    assert is_exported(tmp_path)


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "export").touch()
    with pytest.raises(FileExistsError, match=r"'export'.*[Ee]xpected a folder"):
        check_replaceable(tmp_path / "export")


def test_the_first_things_in_the_way_are_named(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match=r"'a', 'b', 'c', and others"):
        check_replaceable(tmp_path)
