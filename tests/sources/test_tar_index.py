import logging
import multiprocessing
import os
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from synth2_lightning.io.index_files import SECONDS_TO_WAIT, Index, open_index
from synth2_lightning.sources import tar_index
from synth2_lightning.sources.tar_files import TarFile
from synth2_lightning.sources.tar_index import open_tar_indexes, scan_tar
from synth2_lightning.sources.webdataset import TarSource


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return path


def sample(key: str, caption: str) -> dict[str, bytes]:
    return {f"{key}.png": b"image of " + key.encode(), f"{key}.txt": caption.encode()}


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    return write_tar(tmp_path / "0.tar", {**sample("00", "zero"), **sample("01", "one"), "02.png": b"no caption"})


def open_one(tar: Path) -> Index:
    (index,) = open_tar_indexes([TarFile.of_path(tar)])
    return index


def forbid_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(tar: TarFile) -> Index:
        raise AssertionError(f"{tar} is scanned")

    monkeypatch.setattr(tar_index, "scan_tar", scan)


def test_offsets_are_those_of_the_images(tar: Path) -> None:
    samples, skipped = scan_tar(TarFile.of_path(tar))
    assert samples["key"].to_pylist() == ["00", "01"]
    assert samples["captions"].to_pylist() == [["zero"], ["one"]]
    assert skipped == {"images without a caption": (1, "02")}
    content = tar.read_bytes()
    starts, sizes = samples["offset"].to_pylist(), samples["size"].to_pylist()
    images = [content[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    assert images == [b"image of 00", b"image of 01"]


@pytest.mark.usefixtures("own_cache")
def test_a_tar_is_scanned_once(tar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_one(tar)
    forbid_scans(monkeypatch)
    again = open_one(tar)
    assert again.rows.equals(first.rows)
    assert {reason: tuple(count) for reason, count in again.notes.items()} == {"images without a caption": (1, "02")}


def test_a_changed_tar_is_scanned_again(tar: Path, own_cache: Path) -> None:
    open_one(tar)
    status = tar.stat()
    write_tar(tar, {**sample("00", "new."), **sample("01", "one"), "02.png": b"no caption"})
    assert tar.stat().st_size == status.st_size
    os.utime(tar, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert open_one(tar).rows["captions"].to_pylist() == [["new."], ["one"]]
    assert len(list(own_cache.rglob("*.arrow"))) == 1  # the outdated one is deleted


@pytest.mark.usefixtures("own_cache")
def test_a_damaged_tar_is_not_kept(tar: Path, own_cache: Path) -> None:
    tar.write_bytes(tar.read_bytes()[:600])
    with pytest.raises(OSError, match=r"0\.tar cannot be read as a tar"):
        open_one(tar)
    assert not list(own_cache.rglob("*.arrow"))


@pytest.mark.parametrize("content", [b"", b"cut", None])
def test_a_damaged_index_is_made_again(
    tar: Path, own_cache: Path, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    open_one(tar)
    (file,) = own_cache.rglob("*.arrow")
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    assert open_one(tar).rows["key"].to_pylist() == ["00", "01"]
    assert "is damaged" in caplog.text
    caplog.clear()
    assert open_one(tar).rows["key"].to_pylist() == ["00", "01"]
    assert open_one(tar).rows["key"].to_pylist() == ["00", "01"]
    assert not caplog.records


def test_without_a_writable_cache_the_index_is_in_memory(
    tar: Path, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (own_cache / "indexes").write_text("a file in the way")
    with caplog.at_level(logging.WARNING):
        assert open_one(tar).rows["key"].to_pylist() == ["00", "01"]
    assert "0.tar is not kept" in caplog.text
    assert str(own_cache) in caplog.text


def _open(tar: Path) -> list[str]:
    keys: list[str] = open_one(tar).rows["key"].to_pylist()
    return keys


def test_processes_share_one_index(tar: Path, own_cache: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(_open, [tar] * 8) == [["00", "01"]] * 8
    assert len(list(own_cache.rglob("*.arrow"))) == 1
    assert not list(own_cache.rglob("*.tmp"))


@pytest.mark.usefixtures("own_cache")
def test_a_source_reads_images_by_a_kept_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        write_tar(tmp_path / f"{number}.tar", {**sample(f"{number}0", "zero"), **sample(f"{number}1", "one"), "x": b""})
    TarSource(str(tmp_path / "*.tar")).load()
    forbid_scans(monkeypatch)
    caplog.clear()
    source = TarSource(str(tmp_path / "*.tar"), limit=5)
    source.load()
    assert [source.key(index) for index in range(len(source))] == ["00", "01", "10", "11", "20"]
    assert source.count_captions().tolist() == [1] * 5
    assert "3 members that are neither images nor captions" in caplog.text
    with pytest.raises(OSError, match=r"2\.tar:20\.png"):  # not an image, but listed in the index
        source.image(4)


@pytest.mark.usefixtures("own_cache")
def test_what_another_process_scans_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tars = [TarFile.of_path(write_tar(tmp_path / f"{number}.tar", sample("0", f"{number}"))) for number in range(3)]
    opened: list[tuple[str, float]] = []

    def watch(name: str, version: str, make: Callable[[], Index], seconds: float) -> Index:
        opened.append((Path(name).name, seconds))
        if opened == [("0.tar", 0.0)]:
            raise BlockingIOError("process 7 scans it")
        return open_index(name, version, make, seconds)

    monkeypatch.setattr(tar_index, "open_index", watch)
    indexes = open_tar_indexes(tars)
    assert [index.rows["captions"].to_pylist() for index in indexes] == [[["0"]], [["1"]], [["2"]]]
    assert opened == [("0.tar", 0.0), ("1.tar", 0.0), ("2.tar", 0.0), ("0.tar", SECONDS_TO_WAIT)]


@pytest.mark.usefixtures("own_cache")
def test_tars_behind_the_limit_are_not_scanned(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", sample("00", "zero"))
    (tmp_path / "1.tar").write_bytes(b"damaged")
    source = TarSource(str(tmp_path / "*.tar"), limit=1)
    source.load()
    assert len(source) == 1
