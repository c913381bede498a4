import os
from pathlib import Path

import pytest

from synth2_lightning.sources.image_files import find_images


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b/z.JPG", "b/a.png", "a.webp", "notes.txt", ".hidden.png", ".cache/c.png", "odd[1].png", "raw"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_folders_are_searched_to_the_bottom_in_order() -> None:
    found = find_images(["."])
    assert found.names == ("./a.webp", "./odd[1].png", "./b/a.png", "./b/z.JPG")
    assert found.num_others == 2
    assert found.missing == ()


@pytest.mark.usefixtures("folder")
def test_named_files_are_taken_with_any_name() -> None:
    assert find_images(["raw", ".hidden.png"]).names == ("raw", ".hidden.png")


@pytest.mark.usefixtures("folder")
def test_patterns_name_files_and_a_file_with_brackets_is_itself() -> None:
    assert find_images(["**/*.png"]).names == ("b/a.png", "odd[1].png")
    assert find_images(["odd[1].png"]).names == ("odd[1].png",)


def test_each_image_comes_once(folder: Path) -> None:
    assert find_images(["b/a.png", "b", str(folder / "b"), "./b/a.png"]).names == ("b/a.png", "b/z.JPG")


@pytest.mark.usefixtures("folder")
def test_what_is_not_there_is_named() -> None:
    assert find_images(["gone.png", "*.gif", "raw"]).missing == (
        ("gone.png", "there is no such file or folder"),
        ("*.gif", "no file matches this pattern"),
    )


@pytest.mark.skipif(os.getuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "b").chmod(0)
    assert find_images(["."]).missing == (("./b", "the folder cannot be read: Permission denied"),)


def test_addresses_need_to_be_allowed() -> None:
    with pytest.raises(ValueError, match=r"not fetched.*--allow_urls"):
        find_images(["https://example.org/a.png"])
    assert find_images(["https://example.org/a.png"], allow_urls=True).names == ("https://example.org/a.png",)


def test_only_http_and_https_are_addresses() -> None:
    with pytest.raises(ValueError, match=r"'file'.*http or https"):
        find_images(["file:///etc/passwd"], allow_urls=True)


def test_what_systems_leave_behind_is_no_image(folder: Path) -> None:
    for name in ("b/._a.png", "__MACOSX/b/a.png", "b/Thumbs.db"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    found = find_images(["."])
    assert found.names == ("./a.webp", "./odd[1].png", "./b/a.png", "./b/z.JPG")
    assert found.num_others == 2
