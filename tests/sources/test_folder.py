from pathlib import Path

import pytest
from PIL import Image

from synth2_lightning.sources.folder import FolderSource


def test_captions_lie_beside_the_pictures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/2.png", "1.JPG", "3.png"):
        Image.new("RGB", (3, 2)).save(tmp_path / name)
    (tmp_path / "b" / "2.txt").write_text("one\n two \n\n")
    (tmp_path / "1.txt").write_text("three")
    source = FolderSource(str(tmp_path))
    source.load()

    assert [(source.key(index), source.captions(index)) for index in range(len(source))] == [
        ("1", ("three",)),
        ("b/2", ("one", "two")),
    ]
    assert source.picture(1).size == (3, 2)
    assert "1 pictures without a caption (the first: 3)" in caplog.text


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("1.png", "1.jpg"):
        Image.new("RGB", (3, 2)).save(tmp_path / name)
    (tmp_path / "1.txt").write_text("one")

    with pytest.raises(ValueError, match="two pictures with the key '1'"):
        FolderSource(str(tmp_path)).load()


def test_missing_folder_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="images folder of source 'folder' is not at 'gone'"):
        FolderSource("gone").load()
