import json
import pickle
import re
import tarfile
from io import BytesIO
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from synth2_lightning.sources.webdataset import TarSource

pytestmark = pytest.mark.usefixtures("own_cache")


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


def test_samples_are_read_at_their_offsets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tar(
        tmp_path / "0.tar",
        {
            "00.png": png("red"),
            "00.txt": b"a red\nimage ",
            "00.json": json.dumps({"caption": "metadata"}).encode(),
            "01.json": json.dumps({"caption": "green"}).encode(),
            "01.png": png("lime"),
            "02.txt": b"no image",
            "03.png": png("red"),
            "../04.png": png("red"),
            "/05.png": png("red"),
        },
    )
    write_tar(tmp_path / "1.tar", {"sub/06.png": b"damaged", "sub/06.txt": b"six"})
    source = TarSource([str(tmp_path / "*.tar")])
    source.load()

    assert [(source.key(index), source.captions(index)) for index in range(len(source))] == [
        ("00", ("a red image",)),
        ("01", ("green",)),
        ("sub/06", ("six",)),
    ]
    assert source.image(1).getpixel((0, 0)) == (0, 255, 0)
    assert pickle.loads(pickle.dumps(source)).image(0).getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(OSError, match=r"1\.tar:sub/06\.png.*read"):
        source.image(2)
    assert "2 members that are not plain files below the tar's root (the first: " in caplog.text
    assert "1 captions without an image (the first: 02)" in caplog.text
    assert "1 images without a caption (the first: 03)" in caplog.text


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
    assert "1 members that are not plain files" in caplog.text


def test_pattern_without_match_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"source.*'webdataset'.*matches"):
        TarSource([str(tmp_path / "gone*.tar")]).load()


def test_compressed_and_truncated_tars_are_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"0.png": png("red"), "0.txt": b"red"}, "w:gz")
    with pytest.raises(OSError, match=r"0\.tar.*uncompressed.*complete"):
        TarSource([str(tmp_path / "0.tar")]).load()

    write_tar(tmp_path / "1.tar", {"0.txt": b"red", "0.png": png("red") * 20})
    (tmp_path / "1.tar").write_bytes((tmp_path / "1.tar").read_bytes()[:1700])
    with pytest.raises(OSError, match=r"1\.tar.*read"):
        TarSource([str(tmp_path / "1.tar")]).load()


@pytest.mark.parametrize(("name", "content"), [("0.json", b"{"), ("0.json", b"[1]"), ("0.txt", b"\xff\xfe\xff")])
def test_unreadable_captions_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    write_tar(tmp_path / "0.tar", {name: content})

    with pytest.raises(ValueError, match=rf"0\.tar:{name} has no caption .*; expected UTF-8 text, or a JSON object"):
        TarSource([str(tmp_path / "0.tar")]).load()


def load(*tars: str) -> dict[str, tuple[str, ...]]:
    source = TarSource(list(tars))
    source.load()
    return {source.key(index): source.captions(index) for index in range(len(source))}


def sample(name: str, caption: str) -> dict[str, bytes]:
    return {f"{name}.png": png("red"), f"{name}.txt": caption.encode()}


def test_members_of_a_sample_are_named_alike_up_to_the_last_suffix(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    members = sample("22.05", "five") | sample("./shot.2.0", "shot") | sample("v1.0/a", "a")
    members |= {"B.JPEG": png("red"), "B.TXT": b"b", "c.webp": png("red"), "c.Json": b'{"caption": "c"}'}
    members |= {"a.seg.png": png("red"), "s1.input.jpg": png("red"), "s1.outputs.txt": b"s1", "d.cls": b"7"}
    write_tar(tmp_path / "0.tar", members)

    assert load(str(tmp_path / "0.tar")) == {
        "22.05": ("five",),
        "shot.2.0": ("shot",),
        "v1.0/a": ("a",),
        "B": ("b",),
        "c": ("c",),
    }
    assert "2 images without a caption (the first: a.seg)" in caplog.text
    assert "1 captions without an image (the first: s1.outputs)" in caplog.text
    assert re.search(r"1 members that are neither .*0\.tar:d\.cls\)", caplog.text)


def test_equal_keys_in_different_tars_are_different_samples(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_tar(tmp_path / folder / "00000.tar", sample("000", f"{folder} zero"))
    write_tar(tmp_path / "b" / "00001.tar", sample("000", "b one") | sample("001", "b two"))

    assert load(str(tmp_path / "*" / "*.tar")) == {
        "000": ("a zero",),
        "00000/000": ("b zero",),
        "00001/000": ("b one",),
        "001": ("b two",),
    }
    write_tar(tmp_path / "a" / "00001.tar", sample("000", "a one"))
    assert load(str(tmp_path / "a/*.tar"), str(tmp_path / "b/*.tar")) == {
        "000": ("a zero",),
        "00001/000": ("a one",),
        "00000/000": ("b zero",),
        "b/00001/000": ("b one",),
        "001": ("b two",),
    }


def test_keys_that_equal_prefixed_keys_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "x.tar", sample("0", "zero") | sample("a/0", "one"))
    write_tar(tmp_path / "a.tar", sample("0", "two"))
    assert load("x.tar", "a.tar") == {"0": ("zero",), "a/0": ("one",), "0~2": ("two",)}


def test_each_tar_is_read_once(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", sample("000", "zero"))
    assert load(str(tmp_path / "0.tar"), str(tmp_path / "*.tar")) == {"000": ("zero",)}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_are_no_part_of_a_caption(tmp_path: Path, encoding: str) -> None:
    texts = {"0.txt": "ein Hündchen".encode(encoding), "1.json": '{"caption": "ein Hündchen"}'.encode(encoding)}
    write_tar(tmp_path / "0.tar", {"0.png": png("red"), "1.png": png("red")} | texts)
    assert load(str(tmp_path / "0.tar")) == {"0": ("ein Hündchen",), "1": ("ein Hündchen",)}


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("a/{08..10}.tar", ["a08", "a09", "a10"]),
        ("[ab]/{08..09}.tar", ["a08", "b08", "a09", "b09"]),
        ("y/{0..10}.tar", [f"y{number}" for number in range(11)]),
        ("x{1..2}/{3..4}.tar", ["x13", "x14", "x23", "x24"]),
    ],
)
def test_ranges_of_tars(tmp_path: Path, pattern: str, keys: list[str]) -> None:
    numbers = [f"y/{number}" for number in range(11)]
    for name in ("a/08", "a/09", "a/10", "b/08", "b/09", "x1/3", "x1/4", "x2/3", "x2/4", *numbers):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_tar(tmp_path / f"{name}.tar", sample(name.replace("/", ""), "red"))
    assert list(load(str(tmp_path / pattern))) == keys


def test_missing_tars_of_a_range_are_named(tmp_path: Path) -> None:
    for number in (0, 2):
        write_tar(tmp_path / f"0000{number}.tar", sample(str(number), "red"))
    with pytest.raises(FileNotFoundError, match=r"2.*00001\.tar.*00003\.tar"):
        load(str(tmp_path / "{00000..00003}.tar"))
    with pytest.raises(FileNotFoundError, match=r"1.*missing.*/1\.tar"):
        load(str(tmp_path / "{1..1}.tar"))


def test_names_with_braces_and_brackets_are_files_where_they_are_there(tmp_path: Path) -> None:
    write_tar(tmp_path / "a{0..1}[2].tar", sample("0", "red"))
    assert load(str(tmp_path / "a{0..1}[2].tar")) == {"0": ("red",)}


def test_ranges_of_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH2_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    for number in range(2):
        write_tar(tmp_path / "0.tar", sample("000", f"number {number}"))
        system.pipe(f"/ranges/{number:05d}.tar", (tmp_path / "0.tar").read_bytes())

    assert load("memory://ranges/{00000..00001}.tar") == {"000": ("number 0",), "00001/000": ("number 1",)}
    with pytest.raises(FileNotFoundError, match=r"1.*missing.*memory://ranges/00002\.tar"):
        load("memory://ranges/{00000..00002}.tar")


def test_tars_at_addresses_are_read_in_parts(own_cache: Path, tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    for number in range(2):
        write_tar(tmp_path / f"{number}.tar", sample(f"{number}0", "zero") | sample(f"{number}1", "one"))
        system.pipe(f"/parts/{number}.tar", (tmp_path / f"{number}.tar").read_bytes())
    expected = TarSource(str(tmp_path / "*.tar"))
    expected.load()
    source = TarSource("memory://parts/*.tar")
    source.load()
    assert [source.key(index) for index in range(4)] == [expected.key(index) for index in range(4)]
    assert source.image(3).tobytes() == expected.image(3).tobytes()
    assert not (own_cache / "remote").exists()  # no copy

    before = source.fingerprint()
    again = TarSource("memory://parts/*.tar")
    again.load()
    assert again.fingerprint() == before
    content = (tmp_path / "1.tar").read_bytes().replace(b"one", b"two")
    system.pipe("/parts/1.tar", content)
    changed = TarSource("memory://parts/*.tar")
    changed.load()
    assert changed.captions(3) == ("two",)
    assert changed.fingerprint() != before
    system.rm("/parts/1.tar")
    with pytest.raises(OSError, match=r"memory:///parts/1\.tar"):
        changed.image(3)


def test_counts_under_a_limit_are_of_the_tars_that_were_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        write_tar(tmp_path / f"{number}.tar", sample(f"{number}0", "zero") | {"x": b"", f"{number}1.png": png("red")})
    TarSource(str(tmp_path / "*.tar"), limit=2).load()
    assert "2 images without a caption (the first: 01), in the 2 of 3 tars that limit=2 needs." in caplog.text
