import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from synth2_lightning.generators.completion_cache import CompletionCache
from synth2_lightning.types import Completion

ANSWER = Completion("Ein Hündchen läuft.", "stop", 80, 5)


def test_answers_outlive_the_cache(tmp_path: Path) -> None:
    with CompletionCache(tmp_path / "new" / "folder") as cache:
        cache.put(b"one", ANSWER)
        assert cache.get(b"one") == ANSWER
    with CompletionCache(str(tmp_path / "new" / "folder")) as cache:
        assert cache.get(b"one") == ANSWER
        assert cache.get(b"two") is None
        assert len(cache) == 1


def test_the_first_answer_stays(tmp_path: Path) -> None:
    with CompletionCache(tmp_path) as cache:
        cache.put(b"one", ANSWER)
        cache.put(b"one", Completion("another", "stop", 1, 1))
        assert cache.get(b"one") == ANSWER


def _write(folder: Path, process: int) -> None:
    with CompletionCache(folder) as cache:
        for number in range(50):
            cache.put(f"{process}-{number}".encode(), ANSWER)


def test_several_processes_share_a_cache_from_its_making_on(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write, args=(tmp_path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    with CompletionCache(tmp_path) as cache:
        assert len(cache) == 200


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "completions.sqlite3").write_bytes(b"not a database, but long enough to be looked at" * 20)
    with pytest.raises(ValueError, match=r"completions\.sqlite3.*not a database"):
        CompletionCache(tmp_path)


def test_damage_that_shows_later_is_named(tmp_path: Path) -> None:
    with CompletionCache(tmp_path) as cache:
        for number in range(2000):
            cache.put(str(number).encode(), ANSWER)
    path = tmp_path / "completions.sqlite3"
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * len(content[4096:])
    path.write_bytes(bytes(content))
    with CompletionCache(tmp_path) as cache, pytest.raises(ValueError, match=r"malformed"):
        cache.get(b"7")


def test_a_database_of_others_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "completions.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (name TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"version 0.*version 1"):
        CompletionCache(tmp_path)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"exists.*folder"):
        CompletionCache(tmp_path / "file")


def test_a_disk_that_fails_is_named(tmp_path: Path) -> None:
    with CompletionCache(tmp_path) as cache:
        cache._connection.execute("PRAGMA query_only = ON")
        with pytest.raises(OSError, match=r"readonly database"):
            cache.put(b"one", ANSWER)
