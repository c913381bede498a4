"""Tasks that depend on each other, several at a time; what was finished before is skipped, and commands are resumed.

Sessions and machines end before long benchmarks do. A task is finished if its end mark exists. When the benchmark ends
early, SIGTERM is sent to the commands that are running, which then save a checkpoint.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from report import commit

_NUM_LINES = 15
_running: set["subprocess.Popen[bytes]"] = set()


@dataclass(frozen=True)
class Task:
    """One piece of work.

    Args:
        name: Unique name.
        mark: File that is written when the task is finished.
        minutes: Estimated minutes on one core.
        run: Does the work, or resumes it.
        needs: Names of tasks that must be finished before.
    """

    name: str
    mark: Path
    minutes: float
    run: Callable[[], object]
    needs: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether the task is finished."""
        return self.mark.exists()


def run_tasks(tasks: Sequence[Task], num_jobs: int) -> None:
    """Run all tasks that are not finished, in their order as far as their needs allow.

    Args:
        tasks: All tasks; a name that occurs twice is one task.
        num_jobs: Number of tasks that run at a time.

    Raises:
        ValueError: If a task needs one that is not given.
    """
    unique = {task.name: task for task in tasks}
    if missing := {name for task in tasks for name in task.needs} - unique.keys():
        raise ValueError(f"Tasks need {', '.join(sorted(missing))}; expected them among the {len(unique)} tasks.")
    done = {name for name, task in unique.items() if task.is_done}
    pending = [task for task in unique.values() if not task.is_done]
    print(f"{len(pending)} of {len(unique)} tasks to run, {num_jobs} at a time", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    running: dict[Future[float], Task] = {}
    with ThreadPoolExecutor(num_jobs) as pool:
        try:
            while pending or running:
                ready = [task for task in pending if done.issuperset(task.needs)][: num_jobs - len(running)]
                for task in ready:
                    pending.remove(task)
                    running[pool.submit(_run, task)] = task
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    task = running.pop(future)
                    print(f"{task.name}: {future.result():.1f} minutes", flush=True)
                    done.add(task.name)
        finally:
            for process in list(_running):
                process.terminate()


def print_tasks(tasks: Sequence[Task], num_jobs: int) -> None:
    """Print the tasks with estimated minutes, or those that they took, and the sum of what is left."""
    table = Table(title="Tasks")
    for heading in ("task", "minutes", "state"):
        table.add_column(heading, justify="right" if heading == "minutes" else "left")
    unique = {task.name: task for task in tasks}
    for task in unique.values():
        minutes = json.loads(task.mark.read_text())["minutes"] if task.is_done else task.minutes
        table.add_row(task.name, f"{minutes:.1f}", "finished" if task.is_done else "to do")
    left = sum(task.minutes for task in unique.values() if not task.is_done)
    Console(width=120).print(
        table, f"Left: {left:.0f} minutes of one core, about {left / num_jobs:.0f} with {num_jobs}"
    )


def run_command(words: Sequence[str], log: Path, num_threads: int, folder: Path = Path()) -> None:
    """Run ``synth2`` with some arguments in a folder; its output goes to a file.

    Raises:
        RuntimeError: If the command fails, with the end of its output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {"OMP_NUM_THREADS": str(num_threads), **os.environ}  # the user's setting has precedence
    with log.open("a") as output:
        # A session of its own: after ctrl-C it gets SIGTERM, and saves a checkpoint.
        process = subprocess.Popen(
            [sys.executable, "-m", "synth2_lightning", *words],
            stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder, start_new_session=True,
        )  # fmt: skip
        _running.add(process)
        code = process.wait()
        _running.discard(process)
    if code:
        tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-_NUM_LINES:])
        raise RuntimeError(f"synth2 {' '.join(words)} in {folder} failed with exit code {code}. End of {log}:\n{tail}")


def _run(task: Task) -> float:
    start = time.monotonic()
    task.run()
    minutes = (time.monotonic() - start) / 60
    task.mark.parent.mkdir(parents=True, exist_ok=True)
    task.mark.write_text(json.dumps({"minutes": round(minutes, 2), "commit": commit()}))
    return minutes
