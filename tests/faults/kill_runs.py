"""Kill runs over Scenes at random times, resume them, and compare their results with those of uninterrupted runs.

    python tests/faults/kill_runs.py --kills 100

prints a table, and ends with exit code 1 if anything was lost, repeated or different. Each trial of a run is several
kills, each followed by the same command. Every run is the real command in its own process, forked from this one, which
has imported everything before. At random a second process of the same command is started in the same folder: it must be
refused, or, if the first was killed meanwhile, finish the run.
"""

import argparse
import faulthandler
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import datasets  # noqa: F401 - imported here, and the following ones, once for all runs
import pyarrow.parquet as pq
import torch
import torch._dynamo
import torch.utils.tensorboard
from diffusers import VQModel  # noqa: F401
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast  # noqa: F401

from synth2_lightning import cli

HERE = Path(__file__).parent
PATIENCE = 300.0
"""Seconds in which a run has to end after a signal; generous, for busy machines."""
GRACE = 5.0
"""Seconds after which the other ranks are killed after one was, as by a launcher such as torchrun."""
SECOND_WRITERS = 0.5
"""Probability that a second process of the same command is started."""
REFUSED = ("is being written by", "is gone")
MAX_KILLS_PER_TRIAL = 6
FRACTION_CHANGED = 0.3
"""Fraction of restarts before which another setting is tried."""
MAX_FAILURES = 2

Outcome = dict[str, Any]


@dataclass
class Case:
    """A run, the reader of its results, and counts of its kills."""

    name: str
    words: list[str]
    read: Callable[[Path], Outcome]
    num_ranks: int = 1
    targets: tuple[str, ...] = ("run",)
    changed: str = ""
    """An argument with which resuming must be refused."""
    num_refused: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    second_writers: Counter[str] = field(default_factory=Counter)
    num_trials: int = 0
    slowest_end: float = 0.0
    faults: list[str] = field(default_factory=list)
    largest_difference: float = 0.0
    expected: Outcome = field(default_factory=dict)
    seconds: float = 0.0


def read_fit(folder: Path) -> Outcome:
    """Return batches by rank and number, and the last checkpoint."""
    batches: dict[str, set[str]] = {}
    for path in sorted(folder.glob("batches-*.jsonl")):
        for line in path.read_text().splitlines():
            batches.setdefault(f"{path.stem}:{json.loads(line)['batch']:03d}", set()).add(line)
    (checkpoint,) = folder.glob("runs/version_*/checkpoints/step=20.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    wanted = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "loops", "MixedDataModule")
    return {"batches": batches, **{name: content[name] for name in wanted}}


def read_parts(folder: Path) -> Outcome:
    """Return all rows by source and key, the manifest's counts, and temporary files."""
    rows: dict[str, list[Any]] = {}
    for part in sorted((folder / "out").glob("part-*.parquet")):
        for row in pq.read_table(part).to_pylist():
            rows.setdefault(f"{row['source']}/{row['key']}", []).append(row)
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    counts = {name: value for name, value in manifest.items() if name.startswith("num_")}
    drafts = [path.name for path in (folder / "out").glob("*.tmp")]
    return {"rows": rows, "counts": counts, "drafts": drafts}


def make_cases() -> list[Case]:
    """Return all runs."""

    def words(command: str, file: str, *more: str) -> list[str]:
        return [command, "--config", str(HERE / file), "--trust=watched", *more]

    two = ("--trainer.devices=2", "--trainer.strategy=ddp")
    workers = "--data.init_args.num_workers=2"
    ranks = ("run", "rank 0", "rank 1")
    resume = "--ckpt_path=last"
    seed, size = "--seed_everything=99", "--data.init_args.batch_size=2"
    return [
        Case("fit", words("fit", "fit.yaml", resume), read_fit, changed=seed),
        Case("captions", words("predict", "captions.yaml"), read_parts),
        Case("tokens", words("predict", "tokens.yaml"), read_parts),
        Case("fit, 2 workers", words("fit", "fit.yaml", workers, resume), read_fit, 1, ("run", "worker"), size),
        Case("tokens, 2 workers", words("predict", "tokens.yaml", workers), read_parts, 1, ("run", "worker")),
        Case("fit, 2 ranks", words("fit", "fit.yaml", *two, resume), read_fit, 2, ranks, seed),
        Case("captions, 2 ranks", words("predict", "captions.yaml", *two), read_parts, 2, ranks),
        Case("tokens, 2 ranks", words("predict", "tokens.yaml", *two), read_parts, 2, ranks),
    ]


def start(case: Case, folder: Path, log: str = "log.txt") -> list[BaseProcess]:
    """Start the ranks of a run."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_run, args=(case, folder, rank, port, log)) for rank in range(case.num_ranks)]
    for rank in ranks:
        rank.start()
    return list(ranks)


def _run(case: Case, folder: Path, rank: int, port: int, log_name: str) -> None:
    os.setsid()
    os.chdir(folder)
    log = os.open(log_name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    if case.num_ranks > 1:  # the environment that a launcher sets
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    faulthandler.dump_traceback_later(PATIENCE, file=log)  # shows where it hangs
    torch.set_num_threads(1)
    cli.main(case.words)


def wait(ranks: list[BaseProcess], seconds: float) -> bool:
    """Wait for all ranks to end; return whether they did."""
    end = time.monotonic() + seconds
    for rank in ranks:
        rank.join(max(0.0, end - time.monotonic()))
    return all(rank.exitcode is not None for rank in ranks)


def list_workers(ranks: list[BaseProcess]) -> list[int]:
    """Return the process ids of the first rank's data loader workers; empty at its beginning and end."""
    with suppress(FileNotFoundError):  # the rank has just ended
        return [int(pid) for pid in Path(f"/proc/{ranks[0].pid}/task/{ranks[0].pid}/children").read_text().split()]
    return []


def kill_one(case: Case, ranks: list[BaseProcess], target: str, signum: signal.Signals) -> bool:
    """Send a signal to the target's processes; return whether there were any."""
    numbers = {"run": range(case.num_ranks), "rank 0": [0], "rank 1": [1]}
    is_hit = False
    for pid in list_workers(ranks)[:1] if target == "worker" else [ranks[number].pid for number in numbers[target]]:
        assert pid is not None
        with suppress(ProcessLookupError):  # the process has just ended
            os.kill(pid, signum)
            is_hit = True
    return is_hit


def end_all(ranks: list[BaseProcess]) -> None:
    """Kill ranks that did not end, with their workers."""
    for rank in ranks:
        assert rank.pid is not None
        with suppress(ProcessLookupError):
            os.killpg(rank.pid, signal.SIGKILL)
    wait(ranks, PATIENCE)


def start_second(case: Case, folder: Path, ranks: list[BaseProcess], chance: random.Random) -> list[BaseProcess]:
    """With probability ``SECOND_WRITERS``, start the same command in the same folder while the first one runs."""
    (folder / "second.txt").unlink(missing_ok=True)
    # Early, because both acquire the lock late, after the model is built, and the first must still be running then.
    if chance.random() > SECOND_WRITERS or wait(ranks, chance.uniform(0.0, case.seconds / 8)):
        return []
    if case.read is read_fit and not any(folder.glob("runs/version_*/checkpoints/*.ckpt")):
        return []  # without a checkpoint it would start a new run in a new folder
    return start(case, folder, "second.txt")


def end_second(case: Case, folder: Path, ranks: list[BaseProcess]) -> None:
    """Record how the second process ended; it is killed if it was not refused and is still running."""
    if not ranks:
        return
    wait(ranks[:1], GRACE + case.seconds)
    code = ranks[0].exitcode
    end_all(ranks)
    log = (folder / "second.txt").read_text() if (folder / "second.txt").exists() else ""
    outcome = {None: "killed while running", 0: "finished"}.get(
        code, "refused" if any(words in log for words in REFUSED) else f"failed with exit code {code}"
    )
    case.second_writers[outcome] += 1
    if outcome.startswith("failed"):
        case.faults.append(f"second writer: {outcome}:\n{log[-2000:]}")


def resume_with_changes(case: Case, folder: Path) -> Iterator[str]:
    """Try to resume with another setting, which must be refused without changing files; yield the faults."""

    def files() -> dict[Path, tuple[int, int]]:
        paths = (path for path in folder.glob("runs/**/*") if not path.is_dir())  # a lock changes a folder's time
        return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths}

    before = files()
    ranks = start(replace(case, words=[*case.words, case.changed]), folder)
    is_ended = wait(ranks, PATIENCE)
    end_all(ranks)
    name = case.changed.strip("-").partition("=")[0]
    if not is_ended or [rank.exitcode for rank in ranks] != [1] * case.num_ranks:
        yield f"{case.changed}: exit codes {[rank.exitcode for rank in ranks]}; expected to be refused"
    elif f"{name}: " not in (folder / "log.txt").read_text():
        yield f"{case.changed}: refused, but the message does not name the setting"
    elif files() != before:
        yield f"{case.changed}: refused, but files have changed"
    case.num_refused += 1


def run_trial(case: Case, folder: Path, chance: random.Random) -> None:
    """Kill and resume a run until it finishes, and compare its results with the expected ones."""
    num_kills = num_failures = 0
    while True:
        if case.changed and list(folder.glob("runs/*/checkpoints/step=*.ckpt")) and chance.random() < FRACTION_CHANGED:
            case.faults += resume_with_changes(case, folder)
        started = time.monotonic()
        ranks = start(case, folder)
        second = start_second(case, folder, ranks, chance) if num_kills < MAX_KILLS_PER_TRIAL else []
        soonest = case.seconds if second else 0.0  # two processes are slower, and must both reach the lock
        if num_kills < MAX_KILLS_PER_TRIAL and not wait(ranks, chance.uniform(soonest, soonest + case.seconds)):
            target = chance.choice(case.targets)
            if target == "worker" and not list_workers(ranks):
                target = "run"
            signum = signal.SIGKILL if target == "worker" else chance.choice((signal.SIGKILL, signal.SIGTERM))
            if kill_one(case, ranks, target, signum):
                num_kills += 1
                case.kills[f"{signum.name} {target}"] += 1
            before = time.monotonic()
            if target.startswith("rank"):
                wait(ranks, GRACE)
            # A run may also finish, because it was almost done, or no longer needs its worker.
            elif not wait(ranks, PATIENCE + case.seconds):
                log = (folder / "log.txt").read_text()[-2000:]
                case.faults.append(f"{signum.name} to {target}: did not end in {PATIENCE + case.seconds:.0f} s:\n{log}")
            if signum == signal.SIGTERM and target == "run":
                case.slowest_end = max(case.slowest_end, time.monotonic() - before)
                case.codes[" ".join(str(rank.exitcode) for rank in ranks)] += 1
        else:
            wait(ranks, PATIENCE + 10 * case.seconds)
            num_failures += num_kills == MAX_KILLS_PER_TRIAL
            if not num_kills:  # faster than measured before
                case.seconds = time.monotonic() - started
        codes = [rank.exitcode for rank in ranks]
        end_all(ranks)
        end_second(case, folder, second)
        if codes == [0] * case.num_ranks and is_finished(case, folder):
            case.faults += compare(case.read(folder), case.expected, f"trial {case.num_trials}", case)
            return
        if num_failures == MAX_FAILURES:
            log = (folder / "log.txt").read_text()[-2000:]
            case.faults.append(f"does not finish, although it is not killed; exit codes {codes}:\n{log}")
            return


def is_finished(case: Case, folder: Path) -> bool:
    """Return whether the results can be read."""
    try:
        case.read(folder)
    except (ValueError, OSError):
        return False
    return True


def compare(found: Any, expected: Any, place: str, case: Case) -> Iterator[str]:
    """Yield all differences; those of tensors on two ranks only above a tolerance."""
    if isinstance(expected, torch.Tensor):
        difference = float((found.double() - expected.double()).abs().max()) if expected.numel() else 0.0
        case.largest_difference = max(case.largest_difference, difference)
        if difference > (0.0 if case.num_ranks == 1 else 1e-6):
            yield f"{place} differs by {difference:.3g}"
    elif isinstance(expected, dict):
        for name in sorted(found.keys() | expected.keys(), key=str):
            if name not in found or name not in expected:
                yield f"{place}/{name} is {'missing' if name in expected else 'unexpected'}"
            else:
                yield from compare(found[name], expected[name], f"{place}/{name}", case)
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from compare(one, other, f"{place}/{number}", case)
    elif found != expected:
        yield f"{place}: {found!r:.80}; expected {expected!r:.80}"


def show(cases: list[Case]) -> None:
    """Print the table."""
    print(
        "| run | kills | trials | SIGKILL / SIGTERM | exit codes after SIGTERM | second writers | slowest end "
        "| difference | faults |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        by_signal = "; ".join(f"{name} {count}" for name, count in sorted(case.kills.items()))
        codes = "; ".join(f"{code} ({count}x)" for code, count in case.codes.most_common())
        second = "; ".join(f"{outcome} {count}" for outcome, count in case.second_writers.most_common())
        print(
            f"| {case.name} | {case.kills.total()} | {case.num_trials} | {by_signal} | {codes} | {second} "
            f"| {case.slowest_end:.1f} s | {case.largest_difference:.3g} | {len(case.faults)} |"
        )
    for case in cases:
        for fault in case.faults[:10]:
            print(f"{case.name}: {fault}")
    print(f"{sum(case.num_refused for case in cases)} attempts to resume with another setting")
    print(f"{sum(case.kills.total() for case in cases)} kills, {sum(len(case.faults) for case in cases)} faults")


def main() -> int:
    """Kill runs in turn until the number of kills is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", nargs="*", help="names of runs (default: all)")
    args = parser.parse_args()
    sys.path.insert(0, str(HERE))
    cases = [case for case in make_cases() if args.cases is None or case.name in args.cases]
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases:
            folder = Path(scratch) / f"{case.name} uninterrupted"
            folder.mkdir()
            before = time.monotonic()
            ranks = start(case, folder)
            if not wait(ranks, 300) or any(rank.exitcode for rank in ranks):
                print((folder / "log.txt").read_text()[-3000:])
                return 1
            case.seconds = time.monotonic() - before
            case.expected = case.read(folder)
        while sum(case.kills.total() for case in cases) < args.kills:
            case = min(cases, key=lambda case: case.kills.total())
            folder = Path(scratch) / f"{case.name} {case.num_trials}"
            folder.mkdir()
            run_trial(case, folder, chance)
            case.num_trials += 1
            print(f"{case.name}: {case.kills.total()} kills, {len(case.faults)} faults", file=sys.stderr, flush=True)
        show(cases)
    return 1 if any(case.faults for case in cases) else 0


if __name__ == "__main__":
    sys.exit(main())
