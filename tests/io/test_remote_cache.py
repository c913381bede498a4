import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from synth2_lightning.cli import main
from synth2_lightning.io import remote_cache
from synth2_lightning.io.remote import fetch_remote
from synth2_lightning.io.remote_cache import clear, evict, list_entries, pin, read_limit


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SYNTH2_CACHE", str(tmp_path))
    monkeypatch.setattr(remote_cache, "_pinned", {})
    yield tmp_path / "remote"
    let_go()


def let_go() -> None:
    """Release all files in use, as if this process had ended."""
    for descriptor in remote_cache._pinned.values():
        os.close(descriptor)
    remote_cache._pinned.clear()


def make_entry(cache: Path, name: str, num_bytes: int, last_used: float) -> Path:
    folder = cache / name
    folder.mkdir(parents=True)
    (folder / "part").write_bytes(bytes(num_bytes))
    pin(folder, f"s3://bucket/{name}")
    os.utime(folder.with_suffix(".used"), (last_used, last_used))
    let_go()
    return folder


def test_least_recently_used_entries_are_deleted_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH2_CACHE_GB", "0.000001")  # 1,000 bytes
    for name, last_used in (("b", 300), ("a", 200), ("c", 100)):
        make_entry(cache, name, 400, last_used)
    assert [entry.address for entry in evict(cache, 500)] == ["s3://bucket/c", "s3://bucket/a"]
    assert [entry.address for entry in list_entries(cache)] == ["s3://bucket/b"]
    assert evict(cache, 600) == []


def test_a_request_counts_as_a_use(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH2_CACHE_GB", "0.000001")
    old, new = make_entry(cache, "old", 600, 100), make_entry(cache, "new", 600, 200)
    pin(old, "s3://bucket/old")
    let_go()
    assert [entry.folder for entry in evict(cache, 0)] == [new]
    assert old.is_dir()


def test_what_another_process_uses_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH2_CACHE_GB", "0.000000001")
    used, unused = make_entry(cache, "used", 400, 100), make_entry(cache, "unused", 400, 200)
    code = "import sys; from pathlib import Path; from synth2_lightning.io.remote_cache import pin\n"
    code += "pin(Path(sys.argv[1]), 's3://bucket/used'); print('held', flush=True); input()"
    words = [sys.executable, "-c", code, str(used)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert [entry.folder for entry in evict(cache, 9)] == [unused]
        assert clear(cache) == ([], list_entries(cache))
        process.stdin.close()
    assert [entry.folder for entry in clear(cache)[0]] == [used]
    assert list_entries(cache) == []


def test_clearing_takes_what_kills_have_left_along(cache: Path) -> None:
    make_entry(cache, "whole", 7, 100)
    (cache / "half.draft" / "whole").mkdir(parents=True)
    (cache / "old.gone").mkdir()
    assert [entry.num_bytes for entry in clear(cache)[0]] == [7]
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("written", ["0", "-1", "many", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH2_CACHE_GB", written)
    with pytest.raises(ValueError, match=f"SYNTH2_CACHE_GB.*'{written}'"):
        read_limit()


def test_fetching_frees_space_and_keeps_what_this_process_reads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pipe({f"/bucket/{name}": bytes(700) for name in "abc"})
    monkeypatch.setenv("SYNTH2_CACHE_GB", "0.000001")
    first = fetch_remote("memory://bucket/a", "captions")
    second = fetch_remote("memory://bucket/b", "captions")
    assert first.exists()  # in use, although the limit is exceeded
    let_go()
    os.utime(first.parent.with_suffix(".used"), (1, 1))
    third = fetch_remote("memory://bucket/c", "captions")
    assert not first.exists()
    assert not second.exists()
    assert third.exists()
    assert re.search(r"Deleted.*memory://bucket/a\b", capsys.readouterr().err.replace("\n", " "))
    assert fetch_remote("memory://bucket/a", "captions").stat().st_size == 700
    MemoryFileSystem.store.clear()


def test_the_command_lists_and_clears(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_entry(cache, "[red]set", 2_500_000, 100)
    main(["cache"])
    listed = capsys.readouterr().out
    assert "s3://bucket/[red]set" in listed
    assert "2.5 MB" in listed
    assert "0.00 GB of 100 GB" in listed
    main(["cache", "--clear"])
    assert "1 downloads, 2.5 MB, and 0 indexes" in capsys.readouterr().out
    assert list_entries(cache) == []
    main(["cache", "--clear"])  # no error if nothing is left
    assert "Deleted 0 downloads" in capsys.readouterr().out
