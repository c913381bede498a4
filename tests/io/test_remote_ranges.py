import io
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from synth2_lightning.io import remote_ranges
from synth2_lightning.io.remote_ranges import MAX_BYTES, open_remote, read_range

CONTENT = bytes(range(256)) * 20
ADDRESS = "memory://bucket/a.tar"


class Store(MemoryFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """File system that records the ranges that are read; reads fail or are short on demand."""

    protocol = "memory"
    store: dict[str, Any] = {}  # noqa: RUF012
    ranges: list[tuple[int, int]] = []  # noqa: RUF012
    replies: list[bytes | Exception] = []  # noqa: RUF012

    def cat_file(self, path: str, start: int, end: int, **_: Any) -> bytes:
        self.ranges.append((start, end))
        reply = self.replies.pop(0) if self.replies else super().cat_file(path, start=start, end=end)
        if isinstance(reply, Exception):
            raise reply
        return reply


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    fsspec.register_implementation("memory", Store, clobber=True)
    Store.store.clear()
    Store.ranges.clear()
    Store.replies.clear()
    fsspec.filesystem("memory").pipe("/bucket/a.tar", CONTENT)
    seconds: list[float] = []
    monkeypatch.setattr("synth2_lightning.io.remote_ranges.time.sleep", seconds.append)
    yield seconds
    fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)


def test_a_range_is_one_request() -> None:
    assert read_range(ADDRESS, 10, 5, "tar") == CONTENT[10:15]
    assert read_range(ADDRESS, 10, 0, "tar") == b""
    assert Store.ranges == [(10, 15)]


@pytest.mark.parametrize("failure", [ConnectionResetError("reset"), TimeoutError(), OSError("503 Slow Down"), b"shor"])
def test_failures_are_repeated(failure: Exception | bytes, pauses: list[float]) -> None:
    Store.replies += [failure, failure, failure]
    assert read_range(ADDRESS, 10, 5, "tar") == CONTENT[10:15]
    assert pauses == [1.0, 2.0, 4.0]


def test_the_last_failure_is_reported(pauses: list[float]) -> None:
    Store.replies += [ConnectionResetError("reset by peer")] * 4
    with pytest.raises(OSError, match=r"tar at 'memory://bucket/a\.tar'.*ConnectionResetError: reset by peer"):
        read_range(ADDRESS, 10, 5, "tar")
    assert len(Store.ranges) == 4
    assert len(pauses) == 3


def test_a_missing_file_is_not_requested_again(pauses: list[float]) -> None:
    with pytest.raises(FileNotFoundError, match=r"tar is not at 'memory://bucket/b\.tar'"):
        read_range("memory://bucket/b.tar", 0, 5, "tar")
    Store.replies.append(PermissionError("Access Denied"))
    with pytest.raises(OSError, match=r"Access Denied.*credentials"):
        read_range(ADDRESS, 0, 5, "tar")
    assert pauses == []


def test_a_reply_of_another_length_is_refused() -> None:
    Store.replies += [CONTENT] * 4  # as of a server that ignores ranges
    with pytest.raises(OSError, match=r"returned 5120 bytes, but 5 from 10 were requested"):
        read_range(ADDRESS, 10, 5, "tar")


def test_memory_is_limited() -> None:
    with pytest.raises(OSError, match=rf"{MAX_BYTES + 1} bytes of memory://bucket/a\.tar.*at most {MAX_BYTES}"):
        read_range(ADDRESS, 0, MAX_BYTES + 1, "tar")
    assert Store.ranges == []


def test_an_address_with_a_secret_is_refused() -> None:
    with pytest.raises(ValueError, match=r"password") as caught:
        read_range("s3://AKIA:geheim@bucket/a.tar", 0, 5, "tar")
    assert "geheim" not in str(caught.value)


def test_a_file_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_ranges, "_BLOCK_BYTES", 512)
    file = open_remote(ADDRESS, len(CONTENT), "tar")
    assert file.read(3) == CONTENT[:3]
    assert file.read(300) == CONTENT[3:303]
    assert Store.ranges == [(0, 512)]
    file.seek(2000)
    assert file.tell() == 2000
    assert file.read(10) == CONTENT[2000:2010]
    assert Store.ranges[1:] == [(2000, 2512)]
    file.seek(-4, io.SEEK_END)
    assert file.read() == CONTENT[-4:]
    assert file.read(1) == b""
    assert all(end <= len(CONTENT) for _, end in Store.ranges)
