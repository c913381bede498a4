import multiprocessing
import multiprocessing.synchronize
import os
from pathlib import Path

import pyarrow as pa
import pytest

from synth2_lightning.cli import main
from synth2_lightning.io.index_files import Index, clear_indexes, describe_files, index_folder, list_indexes, open_index

pytestmark = pytest.mark.usefixtures("own_cache")


def make() -> Index:
    return Index(pa.record_batch({"key": ["a", "b"]}), {"empty": 1})


def forbid() -> Index:
    raise AssertionError("the index is made again")


def test_an_index_is_made_once_per_version() -> None:
    open_index("data", "1", make)
    rows, notes = open_index("data", "1", forbid)
    assert rows.to_pydict() == {"key": ["a", "b"]}
    assert notes == {"empty": 1}
    with pytest.raises(AssertionError, match="again"):
        open_index("data", "2", forbid)
    assert open_index("data", "2", lambda: Index(pa.record_batch({"key": ["c"]}), {})).rows["key"][0].as_py() == "c"
    assert len(list_indexes()) == 1  # that of the former version is deleted


def test_an_index_is_not_in_the_memory_of_the_process() -> None:
    open_index("data", "1", lambda: Index(pa.record_batch({"row": list(range(100_000))}), {}))
    before = pa.total_allocated_bytes()
    rows = open_index("data", "1", forbid).rows
    assert rows["row"][99_999].as_py() == 99_999
    assert pa.total_allocated_bytes() - before < 1000


def test_an_index_without_rows_is_kept() -> None:
    open_index("data", "1", lambda: Index(pa.record_batch({"key": pa.array([], pa.string())}), {}))
    assert open_index("data", "1", forbid).rows.num_rows == 0


def test_versions_of_files(tmp_path: Path) -> None:
    file = tmp_path / "captions.csv"
    file.write_text("a fox")
    os.utime(file, ns=(1, 1))
    versions = {describe_files(file)}
    os.utime(file, ns=(1, 2))
    versions.add(describe_files(file))
    file.write_text("a red fox")
    os.utime(file, ns=(1, 2))
    versions.add(describe_files(file))
    assert len(versions) == 3


def _hold(ready: "multiprocessing.synchronize.Event", over: "multiprocessing.synchronize.Event") -> None:
    def wait() -> Index:
        ready.set()
        over.wait(60)
        return make()

    open_index("data", "1", wait)


def test_a_process_waits_for_another_one_or_goes_on() -> None:
    context = multiprocessing.get_context("fork")
    ready, over = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(ready, over))
    process.start()
    assert ready.wait(60)
    with pytest.raises(BlockingIOError, match=rf"process {process.pid}"):
        open_index("data", "1", forbid, seconds=0.0)
    over.set()
    assert open_index("data", "1", forbid).rows.num_rows == 2
    process.join()
    assert process.exitcode == 0


def test_the_command_lists_and_deletes_indexes(capsys: pytest.CaptureFixture[str]) -> None:
    open_index("one", "1", make)
    open_index("two", "1", make)
    main(["cache"])
    assert f"2 indexes, 0.0 MB in {index_folder()}" in capsys.readouterr().out
    rows = open_index("one", "1", forbid).rows
    main(["cache", "--clear"])
    assert "2 indexes, 0.0 MB" in capsys.readouterr().out
    assert list_indexes() == clear_indexes() == []
    assert rows["key"].to_pylist() == ["a", "b"]  # still mapped
