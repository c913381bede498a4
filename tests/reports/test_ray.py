"""Two workers of a local Ray cluster against one process, over the same caption sets."""

import gc
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from synth2_lightning.cli import main
from synth2_lightning.filters.duplicates import NearDuplicates
from synth2_lightning.reports.caption_set import count_rows
from synth2_lightning.reports.commands import report_on_sets, select_by_class, select_by_cluster
from synth2_lightning.reports.deduplication import deduplicate
from synth2_lightning.reports.engine import SingleProcessEngine
from synth2_lightning.reports.partitions import list_partitions
from synth2_lightning.reports.ray import RayEngine, connect
from synth2_lightning.testing import TinyTextEncoder

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray, about unclosed sockets and folders

QUIET = Console(quiet=True)
NOUNS = ("dog", "cat", "fox", "owl", "boat", "kite", "lamp", "tree", "Füchsin", "犬", "🦊", "naïve poet")
VERBS = ("runs", "sleeps", "waits", "falls", "shines", "läuft")
PLACES = ("in the snow", "on a red table", "beside the old harbour", "under a bridge", "near the 市場", "at dawn")


def write_captions(num: int) -> list[str | None]:
    """Return captions with copies, near copies, chains of near copies, blank ones and other scripts."""
    draw = random.Random(0)
    captions: list[str | None] = []
    for _ in range(num):
        kind = draw.random()
        earlier = [caption for caption in captions[-400:] if caption and caption.strip()]
        if earlier and kind < 0.1:
            captions.append(draw.choice(earlier).upper() + "!")
        elif earlier and kind < 0.35:
            words = draw.choice(earlier).split()
            words[draw.choice((0, len(words) - 1))] = draw.choice(NOUNS)
            captions.append(" ".join(words))
        elif kind < 0.37:
            captions.append(draw.choice((None, "", "  ")))
        else:
            parts = (draw.choice(each) for _ in range(3) for each in (NOUNS, VERBS, PLACES))
            captions.append(f"a {' and '.join(parts)}")
    return captions


def write_set(folder: Path, captions: list[str | None]) -> str:
    """Write a caption set in row groups of unequal sizes, one of them empty, one with blank captions only."""
    folder.mkdir()
    names = [NOUNS[number * number % 7] for number in range(len(captions))]
    keys = [f"key-{number}" for number in range(len(captions))]
    table = pa.table({"key": keys, "caption": pa.array(captions, pa.string()), "class_name": names})
    blank = table.slice(0, 5).set_column(1, "caption", pa.array([" "] * 5, pa.string()))
    with pq.ParquetWriter(folder / "captions.parquet", table.schema) as writer:
        for part in (table.slice(0, 1), table.slice(1, 0), table.slice(1, 1900), blank, table.slice(1901)):
            writer.write_table(part)
    (folder / "manifest.json").write_text(json.dumps({"num_written": len(captions)}))
    return str(folder)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[RayEngine]:
    pytest.importorskip("ray")
    with connect("local", num_cpus=2, object_store_memory=200 * 2**20) as engine:
        yield engine
    gc.collect()  # while the warnings of this module are ignored


def same_files(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        if name.endswith(".parquet"):
            assert pq.read_table(one / name).equals(pq.read_table(other / name)), name
        elif name.endswith(".json"):
            assert json.loads((one / name).read_text()) == json.loads((other / name).read_text()), name
    return True


def list_listening(session: int) -> set[str]:
    """Local addresses of the TCP sockets on which processes of a session listen, as /proc writes them."""
    owned = {link for process in Path("/proc").glob("[0-9]*") for link in _sockets(process, session)}
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {fields[1] for fields in lines if fields[3] == "0A" and f"socket:[{fields[9]}]" in owned}


def _sockets(process: Path, session: int) -> list[str]:
    try:
        if os.getsid(int(process.name)) != session:
            return []
        return [str(link.readlink()) for link in (process / "fd").iterdir()]
    except OSError:  # the process or one of its files no longer exists
        return []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux lists sockets there")
def test_ray_on_this_machine_listens_on_loopback_alone() -> None:
    code = "from synth2_lightning.reports.ray import connect\n"
    code += "with connect('local', num_cpus=1, object_store_memory=80 * 2**20):\n    print('up', flush=True); input()\n"
    pytest.importorskip("ray")
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        listening = list_listening(process.pid)
        process.stdin.write(b"\n")
        process.stdin.close()
    assert listening
    loopback = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
    assert {address.partition(":")[0] for address in listening} <= set(loopback)


@pytest.mark.slow
def test_the_sigterm_handler_is_restored() -> None:  # runs first: only one connection at a time
    ray = pytest.importorskip("ray")
    before = signal.getsignal(signal.SIGTERM)
    with connect("local", num_cpus=1, object_store_memory=80 * 2**20):
        assert ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is before
    assert not ray.is_initialized()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_workers_equal_one_process(two_workers: RayEngine, tmp_path: Path) -> None:
    location = write_set(tmp_path / "set", write_captions(4000))
    encoder = TinyTextEncoder()
    for name, engine in (("one", SingleProcessEngine()), ("two", two_workers)):
        out = tmp_path / name
        deduplicate(location, out / "apart", NearDuplicates(), QUIET, engine)
        select_by_class(location, out / "class", 500, 4, seed=2, console=QUIET, engine=engine)
        select_by_cluster(location, out / "cluster", 700, encoder, 6, seed=1, console=QUIET, engine=engine)
        report_on_sets([location], out / "report", encoder, 5, 300, seed=3, console=QUIET, engine=engine)
    for kind in ("apart", "class", "cluster", "report"):
        assert same_files(tmp_path / "one" / kind, tmp_path / "two" / kind)
    manifest = json.loads((tmp_path / "two" / "apart" / "manifest.json").read_text())
    assert manifest["num_blank"] > 5
    assert manifest["filters"][0]["num_rejected"] > 400
    assert manifest["num_kept"] + manifest["num_blank"] + manifest["filters"][0]["num_rejected"] == 4005


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_errors_of_workers_are_short(two_workers: RayEngine, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"caption": [f"caption {number}" for number in range(1000)]}), path)
    (partition,) = list_partitions(path)
    path.write_bytes(bytes(1000))
    with pytest.raises(ValueError, match=r"t\.parquet.*Parquet.*[Ee]xpected"):
        list(two_workers.map(count_rows, [partition]))
    with pytest.raises(ZeroDivisionError) as raised:
        list(two_workers.map(lambda number: 1 / number, [0]))
    assert "in _apply" in "".join(raised.value.__notes__)
    with pytest.raises(OSError, match=r"Ray.*ValueError: .*t\.parquet"):
        two_workers.find_near_duplicates(NearDuplicates(), [partition])
    assert list(two_workers.map(count_rows, [])) == []


@pytest.mark.slow
def test_workers_do_not_import_from_the_folder_in_which_the_command_was_started(two_workers: RayEngine) -> None:
    ((current, searched),) = two_workers.map(lambda _: (str(Path.cwd()), sys.path), [0])
    assert str(Path.cwd()) not in (current, *searched)


@pytest.mark.slow
def test_an_existing_connection_is_kept(two_workers: RayEngine) -> None:
    with pytest.raises(OSError, match=r"Ray.*already"), connect("local"):
        pass
    assert list(two_workers.map(len, ["a fox"])) == [5]


def test_missing_ray_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("synth2_lightning.io.extras.find_spec", lambda _: None)
    (tmp_path / "t.txt").write_text("a fox\n")
    with pytest.raises(SystemExit) as stop:
        main(["deduplicate", str(tmp_path / "t.txt"), "--out", str(tmp_path / "out"), "--ray", "local"])
    assert stop.value.code == 1
    assert 'pip install "synth2-lightning[ray]"' in capsys.readouterr().err


def test_ray_is_not_imported_by_default() -> None:
    code = "import sys, synth2_lightning.reports.ray; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
