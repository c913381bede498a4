import errno
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from synth2_lightning.io.locations import resolve
from synth2_lightning.io.remote import fetch_remote, is_remote, match_remote


class Store(MemoryFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """File system with ETags as S3 has them, which counts downloads, and damages content on demand."""

    protocol = "memory"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    fetched: list[str] = []  # noqa: RUF012
    arrivals: dict[str, list[bytes | Exception]] = {}  # noqa: RUF012
    etags: dict[str, str] = {}  # noqa: RUF012
    delay = 0.0

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return self.mark(super().info(path, **kwargs))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        return [self.mark(each) if detail else each for each in super().ls(path, detail=detail, **kwargs)]

    def mark(self, info: dict[str, Any]) -> dict[str, Any]:
        if info["type"] == "file":
            name = info["name"]
            info["ETag"] = self.etags.get(name, f'"{hashlib.md5(self.store[name].getvalue()).hexdigest()}"')
            info["LastModified"] = info["created"]
        return info

    def get_file(self, path: str, target: str, **_: Any) -> None:
        time.sleep(self.delay)
        self.fetched.append(path)
        arrival = self.arrivals[path].pop(0) if self.arrivals.get(path) else self.store[path].getvalue()
        if isinstance(arrival, Exception):
            Path(target).write_bytes(b"half of i")
            raise arrival
        Path(target).write_bytes(arrival)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNTH2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "remote"


@pytest.fixture(autouse=True)
def store() -> Iterator[Store]:
    fsspec.register_implementation("memory", Store, clobber=True)
    system = fsspec.filesystem("memory")
    for mutable in (Store.store, Store.fetched, Store.arrivals, Store.etags):
        mutable.clear()
    system.pipe({"/bucket/set/manifest.json": b"{}", "/bucket/set/inner/part.parquet": b"rows"})
    system.pipe("/bucket/captions.csv", b"a fox")
    yield system
    Store.delay = 0.0
    fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)


def test_a_file_keeps_its_name_and_comes_once(store: Store, cache: Path) -> None:
    path = resolve("memory://bucket/captions.csv", "captions")
    assert path.name == "captions.csv"
    assert path.read_bytes() == b"a fox"
    assert path.parent.parent == cache
    assert resolve("memory://bucket/captions.csv", "captions") == path
    assert store.fetched == ["/bucket/captions.csv"]


def test_a_folder_comes_with_all_that_is_below(store: Store) -> None:
    store.pipe("/bucket/settings.json", b"no part of it")
    path = fetch_remote("memory://bucket/set", "shards")
    assert path.name == "set"
    files = {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert files == {"manifest.json": b"{}", "inner/part.parquet": b"rows"}
    assert fetch_remote("memory://bucket/set", "shards") == path
    assert len(store.fetched) == 2


def test_the_message_of_a_fetch_names_the_address_and_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    path = fetch_remote("memory://bucket/set", "shards")
    assert re.search(rf"memory://bucket/set .*2 files.*{re.escape(str(path))}", capsys.readouterr().err)


def test_what_changed_is_fetched_beside_the_old_one(store: Store) -> None:
    old = fetch_remote("memory://bucket/set", "shards")
    store.pipe("/bucket/set/inner/part.parquet", b"more")  # as many bytes
    new = fetch_remote("memory://bucket/set", "shards")
    assert (old / "inner" / "part.parquet").read_bytes() == b"rows"
    assert (new / "inner" / "part.parquet").read_bytes() == b"more"


@pytest.mark.parametrize("name", ["blob_id", "Last-Modified"])
def test_what_changed_is_known_without_an_etag(name: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # As the Hub's file system returns it, and http's if the server sends no ETag.
    def mark(self: Store, info: dict[str, Any]) -> dict[str, Any]:
        entry = {key: info[key] for key in ("name", "size", "type")}
        return entry | ({name: str(self.store[info["name"]].modified)} if info["type"] == "file" else {})

    monkeypatch.setattr(Store, "mark", mark)
    old = fetch_remote("memory://bucket/captions.csv", "captions")
    assert fetch_remote("memory://bucket/captions.csv", "captions") == old
    store.pipe("/bucket/captions.csv", b"a dog")
    assert fetch_remote("memory://bucket/captions.csv", "captions").read_bytes() == b"a dog"


def test_the_age_of_a_file_stays(store: Store) -> None:
    store.store["/bucket/captions.csv"].created = store.store["/bucket/captions.csv"].created.replace(year=2001)
    assert time.localtime(fetch_remote("memory://bucket/captions.csv", "captions").stat().st_mtime).tm_year == 2001


def test_an_interrupted_fetch_resumes_and_never_counts_as_complete(store: Store, cache: Path) -> None:
    Store.arrivals["/bucket/set/manifest.json"] = [ConnectionError("reset by peer")]
    with pytest.raises(OSError, match=r"'memory://bucket/set'.*ConnectionError: reset"):
        fetch_remote("memory://bucket/set", "shards")
    assert [path.suffix for path in cache.iterdir() if path.is_dir()] == [".draft"]
    path = fetch_remote("memory://bucket/set", "shards")
    assert (path / "manifest.json").read_bytes() == b"{}"
    assert sorted(store.fetched) == ["/bucket/set/inner/part.parquet", *["/bucket/set/manifest.json"] * 2]
    assert not list(cache.glob("*.draft"))


def test_processes_and_threads_wait_for_the_one_that_fetches(store: Store) -> None:
    Store.delay = 0.2
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(fetch_remote("memory://bucket/captions.csv", "captions")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4
    assert len(set(paths)) == 1
    assert store.fetched == ["/bucket/captions.csv"]


def test_damage_on_the_way_is_fetched_again() -> None:
    Store.arrivals["/bucket/captions.csv"] = [b"a f?x"]
    assert fetch_remote("memory://bucket/captions.csv", "captions").read_bytes() == b"a fox"


def test_damage_that_comes_twice_is_refused() -> None:
    Store.arrivals["/bucket/captions.csv"] = [b"a f?x", b"a ?ox"]
    with pytest.raises(OSError, match=r"captions\.csv.*MD5.*\b[0-9a-f]{32}\b"):
        fetch_remote("memory://bucket/captions.csv", "captions")
    assert fetch_remote("memory://bucket/captions.csv", "captions").read_bytes() == b"a fox"


@pytest.mark.parametrize("etag", [f'"{"0" * 32}"', f'"{"0" * 32}-7"'])
def test_an_etag_that_is_no_checksum_is_none(etag: str) -> None:
    # The first is an ETag of KMS, which has the form of a checksum; the second is that of an upload in parts.
    Store.etags["/bucket/captions.csv"] = etag
    assert fetch_remote("memory://bucket/captions.csv", "captions").read_bytes() == b"a fox"


def test_half_a_file_is_refused() -> None:
    Store.arrivals["/bucket/captions.csv"] = [b"a f"]
    with pytest.raises(OSError, match=r"captions\.csv.*\b3 bytes.*\b5\b"):
        fetch_remote("memory://bucket/captions.csv", "captions")


def test_a_name_that_leads_out_of_the_folder_is_refused(store: Store, cache: Path) -> None:
    store.pipe("/bucket/set/../../outside", b"x")
    with pytest.raises(OSError, match=r"outside'.*memory://bucket/set"):
        fetch_remote("memory://bucket/set", "shards")
    assert not cache.exists()


def test_patterns(store: Store) -> None:
    store.pipe({"/bucket/tars/1.tar": b"", "/bucket/tars/0.tar": b"", "/bucket/tars/0.txt": b""})
    found = match_remote("memory://bucket/tars/*.tar", "tars")
    assert list(found) == ["memory:///bucket/tars/0.tar", "memory:///bucket/tars/1.tar"]
    assert found["memory:///bucket/tars/0.tar"].size == 0
    assert found["memory:///bucket/tars/0.tar"].version
    with pytest.raises(FileNotFoundError, match=r"tars.*'memory://bucket/\*\.gz'"):
        match_remote("memory://bucket/*.gz", "tars")


@pytest.mark.parametrize("path", ["gone.csv", "gone", "set/gone"])
def test_a_missing_file_is_reported(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSSPEC_MEMORY_ENDPOINT_URL", "http://127.0.0.1:9000")
    match = rf"captions.*'memory://bucket/{path}'.*FSSPEC_MEMORY_ENDPOINT_URL=http://127"
    with pytest.raises(FileNotFoundError, match=match):
        fetch_remote(f"memory://bucket/{path}", "captions")


def test_an_unknown_protocol_is_reported() -> None:
    with pytest.raises(ValueError, match=r"Protocol not known: s4.*s3://BUCKET"):
        resolve("s4://bucket/set", "shards")


def test_a_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: str, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(OSError, match=r"s3fs.*pip install 'synth2-lightning\[s3\]'"):
        resolve("s3://bucket/set", "shards")
    with pytest.raises(OSError, match=r"gs://.*package"):
        resolve("gs://bucket/set", "shards")


def test_missing_permission_is_reported() -> None:
    Store.arrivals["/bucket/captions.csv"] = [PermissionError("Access Denied")]
    with pytest.raises(OSError, match=r"""Access Denied.*AWS_PROFILE.*FSSPEC_MEMORY='{"anon": true}'"""):
        fetch_remote("memory://bucket/captions.csv", "captions")


@pytest.mark.parametrize(
    "address", ["s3://AKIA:geheim@bucket/set", "https://host/set.csv?X-Amz-Signature=geheim", "ftp://me:geheim@host/a"]
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(ValueError, match=r"password.*AWS_PROFILE") as caught:
        resolve(address, "shards")
    assert "geheim" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_reported(cache: Path) -> None:
    cache.parent.write_bytes(b"a file where the folder should be")
    with pytest.raises(OSError, match=r"captions\.csv.*remote.*SYNTH2_CACHE"):
        fetch_remote("memory://bucket/captions.csv", "captions")


def test_too_little_space_is_reported_before_anything_is_fetched(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=3))
    with pytest.raises(OSError, match=r"0\.0 MB.*0\.0 MB.*free"):
        fetch_remote("memory://bucket/captions.csv", "captions")
    assert store.fetched == []


def test_a_disk_that_fills_up_is_reported() -> None:
    Store.arrivals["/bucket/captions.csv"] = [OSError(errno.ENOSPC, "No space left on device")]
    with pytest.raises(OSError, match=r"No space left on device.*local disk"):
        fetch_remote("memory://bucket/captions.csv", "captions")


def test_what_is_no_address() -> None:
    assert not any(map(is_remote, ["data/set", "C:/set", "see http://a.b for more", "s3:/bucket", "://x"]))


def test_a_file_written_again_with_its_old_time_and_size_is_fetched_again(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    for text in ("a fox", "a dog"):
        words.write_text(text)
        os.utime(words, (1.7e9, 1.7e9))
        assert fetch_remote(f"file://{words}", "words").read_text() == text


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "web").mkdir()
    for name in ("a.tar", "b.tar", "c.txt"):
        (tmp_path / "web" / name).write_bytes(name.encode() * 1000)
    handler = partial(QuietHandler, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_files_come_by_http(web: str) -> None:
    assert fetch_remote(f"{web}/a.tar", "tar").read_bytes() == b"a.tar" * 1000
    found = match_remote(f"{web}/*.tar", "tars")
    assert {address: file.size for address, file in found.items()} == {f"{web}/a.tar": 5000, f"{web}/b.tar": 5000}
    with pytest.raises(FileNotFoundError, match=r"\btar\b.*/d\.tar"):
        fetch_remote(f"{web}/d.tar", "tar")


def test_a_server_that_is_not_there_is_not_taken_for_a_missing_file() -> None:
    with pytest.raises(OSError, match=r"ClientConnectorError.*[Ee]xpected a server"):
        fetch_remote("http://127.0.0.1:9/a.tar", "tar")
