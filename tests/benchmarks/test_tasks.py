import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks import Task, print_tasks, run_command, run_tasks


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_tasks_run_after_those_that_they_need_and_finished_ones_are_skipped(tmp_path: Path) -> None:
    order: list[str] = []

    def make(name: str, *needs: str) -> Task:
        return Task(name, tmp_path / name, 1.0, lambda: order.append(name), needs)

    tasks = [make("c", "b"), make("b", "a"), make("a"), make("b", "a")]
    run_tasks(tasks, num_jobs=2)
    assert order == ["a", "b", "c"]
    assert json.loads((tmp_path / "c").read_text())["minutes"] >= 0

    (tmp_path / "b").unlink()
    run_tasks(tasks, num_jobs=2)
    assert order == ["a", "b", "c", "b"]
    with pytest.raises(ValueError, match="need x; expected"):
        run_tasks([make("d", "x")], num_jobs=1)


def test_a_failed_task_is_not_finished_and_ends_the_benchmark(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("no disk")

    done: list[str] = []
    tasks = [Task("a", tmp_path / "a", 1.0, fail), Task("b", tmp_path / "b", 1.0, lambda: done.append("b"), ("a",))]
    with pytest.raises(RuntimeError, match="no disk"):
        run_tasks(tasks, num_jobs=2)
    assert not done
    assert not list(tmp_path.iterdir())


def test_the_plan_is_printed_with_minutes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [Task(name, tmp_path / name, 12.0, list) for name in ("one", "two", "three")]
    (tmp_path / "one").write_text(json.dumps({"minutes": 7.5}))
    print_tasks(tasks, num_jobs=2)
    printed = capsys.readouterr().out
    assert "7.5" in printed
    assert "24 minutes of one core, about 12 with 2" in printed


def test_a_failed_command_names_the_end_of_its_output(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"fitt in .* exit code 2\. End of .*log\.txt:\nerror: There is no command"):
        run_command(["fitt"], tmp_path / "log.txt", 1, tmp_path)
