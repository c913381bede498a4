from pathlib import Path

import pytest

from synth2_lightning.sharing.folder import refuse_taken, write_folder


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "export"
    writing = write_folder(target)
    (writing.__enter__() / "half").touch()
    assert not writing.__exit__(KeyError, KeyError("killed"), None)
    assert list((tmp_path / "deep").iterdir()) == []
    with write_folder(target) as draft:
        (draft / "new").touch()
        assert not target.exists()
    with write_folder(target) as draft:
        (draft / "newer").touch()
    assert [path.name for path in target.iterdir()] == ["newer"]
    assert [path.name for path in target.parent.iterdir()] == ["export"]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "export").touch()
    with pytest.raises(FileExistsError, match=r"holds 'export'; expected a folder that is not there"):
        refuse_taken(tmp_path / "export")
    with pytest.raises(OSError, match=r"cannot be written: .* Expected a folder that may be; name another"):
        write_folder(tmp_path / "export" / "inner").__enter__()


def test_the_first_things_in_the_way_are_named(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match=r"holds 'a', 'b', 'c' and more; expected"):
        refuse_taken(tmp_path)
