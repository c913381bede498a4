from pathlib import Path

import pytest
from PIL import Image

from synth2_lightning.sources.folder import FolderSource


def test_captions_are_in_the_folder_of_their_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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
    assert source.image(1).size == (3, 2)
    assert "1 images without a caption (the first: 3)" in caplog.text


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("1.png", "1.jpg"):
        Image.new("RGB", (3, 2)).save(tmp_path / name)
    (tmp_path / "1.txt").write_text("one")

    with pytest.raises(ValueError, match=r"two.*key '1'"):
        FolderSource(str(tmp_path)).load()


def test_missing_folder_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"images.*'folder'.*'gone'"):
        FolderSource("gone").load()


def test_suffixes_may_be_in_capitals_and_marks_are_no_part_of_a_caption(tmp_path: Path) -> None:
    for name in ("A.JPG", "b.Png", "C.TIFF", "22.05.webp"):
        Image.new("RGB", (3, 2)).save(tmp_path / name)
    for name in ("A.TXT", "b.Txt", "C.txt", "22.05.TXT"):
        (tmp_path / name).write_text("\ufeffa red\u2028image\r\n", encoding="utf-8")
    source = FolderSource(str(tmp_path))
    source.load()

    assert [(source.key(index), source.captions(index)) for index in range(4)] == [
        ("22.05", ("a red\u2028image",)),
        ("A", ("a red\u2028image",)),
        ("C", ("a red\u2028image",)),
        ("b", ("a red\u2028image",)),
    ]


def test_what_is_hidden_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "._a.png", ".hidden/b.png", "__MACOSX/c.png", "d/.e.png"):
        (tmp_path / ".mac" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(tmp_path / ".mac" / name)
        (tmp_path / ".mac" / name).with_suffix(".txt").write_text("red")
    source = FolderSource(str(tmp_path / ".mac"))
    source.load()

    assert [source.key(index) for index in range(len(source))] == ["a"]
    assert "skips 8 hidden files (the first: " in caplog.text
