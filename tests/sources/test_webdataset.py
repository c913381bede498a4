import json
import pickle
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from synth2_lightning.sources.webdataset import TarSource


def png(color: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", (3, 2), color).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]  # the mode is no literal here
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))


def test_samples_are_read_where_they_lie(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tar(
        tmp_path / "0.tar",
        {
            "00.png": png("red"),
            "00.txt": b"a red\npicture ",
            "00.json": json.dumps({"caption": "metadata"}).encode(),
            "01.json": json.dumps({"caption": "green"}).encode(),
            "01.png": png("lime"),
            "02.txt": b"no picture",
            "03.png": png("red"),
            "../04.png": png("red"),
            "/05.png": png("red"),
        },
    )
    write_tar(tmp_path / "1.tar", {"sub/06.png": b"damaged", "sub/06.txt": b"six"})
    source = TarSource([str(tmp_path / "*.tar")])
    source.load()

    assert [(source.key(index), source.captions(index)) for index in range(len(source))] == [
        ("00", ("a red picture",)),
        ("01", ("green",)),
        ("sub/06", ("six",)),
    ]
    assert source.picture(1).getpixel((0, 0)) == (0, 255, 0)
    assert pickle.loads(pickle.dumps(source)).picture(0).getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(OSError, match=r"1\.tar:sub/06\.png cannot be read"):
        source.picture(2)
    assert "2 members that are no plain file below the tar's root (the first: " in caplog.text
    assert "1 captions without a picture (the first: 02)" in caplog.text
    assert "1 pictures without a caption (the first: 03)" in caplog.text


def test_links_are_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, content in {"0.png": png("red"), "0.txt": b"red"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/somewhere/else.png"
        tar.addfile(link)
    source = TarSource(str(tmp_path / "0.tar"))
    source.load()

    assert len(source) == 1
    assert "1 members that are no plain file" in caplog.text


def test_pattern_without_match_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No tar of source 'webdataset' matches .*gone.* Expected a file, or"):
        TarSource([str(tmp_path / "gone*.tar")]).load()


def test_compressed_and_truncated_tars_are_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"0.png": png("red"), "0.txt": b"red"}, "w:gz")
    with pytest.raises(OSError, match=r"0\.tar cannot be read as a tar .*; expected an uncompressed, complete one"):
        TarSource([str(tmp_path / "0.tar")]).load()

    write_tar(tmp_path / "1.tar", {"0.txt": b"red", "0.png": png("red") * 20})
    (tmp_path / "1.tar").write_bytes((tmp_path / "1.tar").read_bytes()[:1700])
    with pytest.raises(OSError, match=r"1\.tar cannot be read as a tar"):
        TarSource([str(tmp_path / "1.tar")]).load()


@pytest.mark.parametrize(("name", "content"), [("0.json", b"{"), ("0.json", b"[1]"), ("0.txt", b"\xff\xfe\xff")])
def test_unreadable_captions_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    write_tar(tmp_path / "0.tar", {name: content})

    with pytest.raises(ValueError, match=rf"0\.tar:{name} holds no caption .*; expected UTF-8 text, or a JSON object"):
        TarSource([str(tmp_path / "0.tar")]).load()
