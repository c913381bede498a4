"""Kill runs over Scenes at random moments, go on with them, and compare what they made with what undisturbed ones make.

    python tests/faults/kill_runs.py --kills 100

prints a table, and ends with exit code 1 if anything was lost, repeated or different. Each life of a run is several
kills, each followed by the same command; every run is the real command in a process of its own, forked from this one,
which has imported everything before. Now and then a second process of the same command is started on the same folder:
it must be refused, or, where the first was killed meanwhile, do its work.
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

import datasets  # noqa: F401 - and what else a run would import late, here once for all of them
import pyarrow.parquet as pq
import torch
import torch._dynamo
import torch.utils.tensorboard
from diffusers import VQModel  # noqa: F401
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast  # noqa: F401

from synth2_lightning import cli

HERE = Path(__file__).parent
PATIENCE = 300.0
"""Seconds within which a run that was told to end has to; many, since a busy machine is no fault."""
GRACE = 5.0
"""Seconds after which the other ranks are killed, too, where one alone was: a launcher, such as torchrun, does that."""
SECOND_WRITERS = 0.5
"""How often a second process of the same command is started meanwhile."""
REFUSED = ("is being written by process", "is gone since it was found")
MOST_KILLS_PER_LIFE = 6
SHARE_CHANGED = 0.3
"""Of the restarts, how many come after one with another setting."""
MOST_FAILURES = 2

Outcome = dict[str, Any]


@dataclass
class Case:
    """A run, and how to read what it made."""

    name: str
    words: list[str]
    read: Callable[[Path], Outcome]
    num_ranks: int = 1
    targets: tuple[str, ...] = ("run",)
    changed: str = ""
    """An argument with which the run must not be resumed."""
    num_refused: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    second_writers: Counter[str] = field(default_factory=Counter)
    num_lives: int = 0
    slowest_end: float = 0.0
    faults: list[str] = field(default_factory=list)
    largest_difference: float = 0.0
    expected: Outcome = field(default_factory=dict)
    seconds: float = 0.0


def read_fit(folder: Path) -> Outcome:
    """Batches by rank and number, and the last checkpoint."""
    batches: dict[str, set[str]] = {}
    for path in sorted(folder.glob("batches-*.jsonl")):
        for line in path.read_text().splitlines():
            batches.setdefault(f"{path.stem}:{json.loads(line)['batch']:03d}", set()).add(line)
    (checkpoint,) = folder.glob("runs/version_*/checkpoints/step=20.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    wanted = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "loops", "MixedDataModule")
    return {"batches": batches, **{name: content[name] for name in wanted}}


def read_parts(folder: Path) -> Outcome:
    """Rows by source and key; what is there twice is told."""
    rows: dict[str, list[Any]] = {}
    for part in sorted((folder / "out").glob("part-*.parquet")):
        for row in pq.read_table(part).to_pylist():
            rows.setdefault(f"{row['source']}/{row['key']}", []).append(row)
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    counts = {name: value for name, value in manifest.items() if name.startswith("num_")}
    drafts = [path.name for path in (folder / "out").glob("*.tmp")]
    return {"rows": rows, "counts": counts, "drafts": drafts}


def make_cases() -> list[Case]:
    """All that is killed."""

    def words(command: str, file: str, *more: str) -> list[str]:
        return [command, "--config", str(HERE / file), "--trust=watched", *more]

    two = ("--trainer.devices=2", "--trainer.strategy=ddp")
    workers = "--data.init_args.num_workers=2"
    ranks = ("run", "rank 0", "rank 1")
    go_on = "--ckpt_path=last"
    seed, size = "--seed_everything=99", "--data.init_args.batch_size=2"
    return [
        Case("fit", words("fit", "fit.yaml", go_on), read_fit, changed=seed),
        Case("captions", words("predict", "captions.yaml"), read_parts),
        Case("tokens", words("predict", "tokens.yaml"), read_parts),
        Case("fit, 2 workers", words("fit", "fit.yaml", workers, go_on), read_fit, 1, ("run", "worker"), size),
        Case("tokens, 2 workers", words("predict", "tokens.yaml", workers), read_parts, 1, ("run", "worker")),
        Case("fit, 2 ranks", words("fit", "fit.yaml", *two, go_on), read_fit, 2, ranks, seed),
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
    if case.num_ranks > 1:  # as a launcher would say it
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    faulthandler.dump_traceback_later(PATIENCE, file=log)  # where it hangs, should it
    torch.set_num_threads(1)
    cli.main(case.words)


def wait(ranks: list[BaseProcess], seconds: float) -> bool:
    """Wait for all to end; whether they did."""
    end = time.monotonic() + seconds
    for rank in ranks:
        rank.join(max(0.0, end - time.monotonic()))
    return all(rank.exitcode is not None for rank in ranks)


def list_workers(ranks: list[BaseProcess]) -> list[int]:
    """Processes that the first rank started to read ahead; none at its beginning and end."""
    with suppress(FileNotFoundError):  # it came to its end in this moment
        return [int(pid) for pid in Path(f"/proc/{ranks[0].pid}/task/{ranks[0].pid}/children").read_text().split()]
    return []


def kill_one(case: Case, ranks: list[BaseProcess], target: str, signum: signal.Signals) -> bool:
    """Send a signal to what is to be killed; whether there was any."""
    numbers = {"run": range(case.num_ranks), "rank 0": [0], "rank 1": [1]}
    is_hit = False
    for pid in list_workers(ranks)[:1] if target == "worker" else [ranks[number].pid for number in numbers[target]]:
        assert pid is not None
        with suppress(ProcessLookupError):  # it came to its end in this moment
            os.kill(pid, signum)
            is_hit = True
    return is_hit


def end_all(ranks: list[BaseProcess]) -> None:
    """End what did not end, with its workers."""
    for rank in ranks:
        assert rank.pid is not None
        with suppress(ProcessLookupError):
            os.killpg(rank.pid, signal.SIGKILL)
    wait(ranks, PATIENCE)


def start_second(case: Case, folder: Path, ranks: list[BaseProcess], chance: random.Random) -> list[BaseProcess]:
    """Start the same command a second time beside the first, or not at all."""
    (folder / "second.txt").unlink(missing_ok=True)
    # Soon, since both reach the lock late, after the model is built, and the first must still be at work then.
    if chance.random() > SECOND_WRITERS or wait(ranks, chance.uniform(0.0, case.seconds / 8)):
        return []
    if case.read is read_fit and not any(folder.glob("runs/version_*/checkpoints/*.ckpt")):
        return []  # without a checkpoint to resume it would be a run of its own, in a folder of its own
    return start(case, folder, "second.txt")


def end_second(case: Case, folder: Path, ranks: list[BaseProcess]) -> None:
    """See how the second process ended; one that was not refused, since the first had ended, is killed as a run is."""
    if not ranks:
        return
    wait(ranks[:1], GRACE + case.seconds)
    code = ranks[0].exitcode
    end_all(ranks)
    told = (folder / "second.txt").read_text() if (folder / "second.txt").exists() else ""
    how = {None: "killed at work", 0: "finished"}.get(
        code, "refused" if any(words in told for words in REFUSED) else f"ended with {code}"
    )
    case.second_writers[how] += 1
    if how.startswith("ended"):
        case.faults.append(f"second writer: {how}:\n{told[-2000:]}")


def resume_with_changes(case: Case, folder: Path) -> Iterator[str]:
    """Try to resume with another setting, which must be refused and change no file."""

    def files() -> dict[Path, tuple[int, int]]:
        paths = (path for path in folder.glob("runs/**/*") if not path.is_dir())  # a lock changes the time of a folder
        return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths}

    before = files()
    ranks = start(replace(case, words=[*case.words, case.changed]), folder)
    is_ended = wait(ranks, PATIENCE)
    end_all(ranks)
    name = case.changed.strip("-").partition("=")[0]
    if not is_ended or [rank.exitcode for rank in ranks] != [1] * case.num_ranks:
        yield f"{case.changed}: ended with {[rank.exitcode for rank in ranks]}, and was to be refused"
    elif f"{name}: " not in (folder / "log.txt").read_text():
        yield f"{case.changed}: was refused without being named"
    elif files() != before:
        yield f"{case.changed}: was refused, but files have changed"
    case.num_refused += 1


def live(case: Case, folder: Path, chance: random.Random) -> None:
    """Kill a run again and again until it comes to its end, and compare what it made."""
    num_kills = num_failures = 0
    while True:
        if case.changed and list(folder.glob("runs/*/checkpoints/step=*.ckpt")) and chance.random() < SHARE_CHANGED:
            case.faults += resume_with_changes(case, folder)
        begun = time.monotonic()
        ranks = start(case, folder)
        second = start_second(case, folder, ranks, chance) if num_kills < MOST_KILLS_PER_LIFE else []
        soonest = case.seconds if second else 0.0  # with two at work all takes longer, and they are to meet
        if num_kills < MOST_KILLS_PER_LIFE and not wait(ranks, chance.uniform(soonest, soonest + case.seconds)):
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
            # A run that finishes all the same, because it was about to, or no longer needs its worker, may.
            elif not wait(ranks, PATIENCE + case.seconds):
                told = (folder / "log.txt").read_text()[-2000:]
                case.faults.append(
                    f"{signum.name} to {target}: did not end in {PATIENCE + case.seconds:.0f} s:\n{told}"
                )
            if signum == signal.SIGTERM and target == "run":
                case.slowest_end = max(case.slowest_end, time.monotonic() - before)
                case.codes[" ".join(str(rank.exitcode) for rank in ranks)] += 1
        else:
            wait(ranks, PATIENCE + 10 * case.seconds)
            num_failures += num_kills == MOST_KILLS_PER_LIFE
            if not num_kills:  # it was quicker than it was before
                case.seconds = time.monotonic() - begun
        codes = [rank.exitcode for rank in ranks]
        end_all(ranks)
        end_second(case, folder, second)
        if codes == [0] * case.num_ranks and is_finished(case, folder):
            case.faults += compare(case.read(folder), case.expected, f"life {case.num_lives}", case)
            return
        if num_failures == MOST_FAILURES:
            log = (folder / "log.txt").read_text()[-2000:]
            case.faults.append(f"does not come to its end, though nothing kills it: {codes}\n{log}")
            return


def is_finished(case: Case, folder: Path) -> bool:
    """Whether what is to be compared is there."""
    try:
        case.read(folder)
    except (ValueError, OSError):
        return False
    return True


def compare(found: Any, expected: Any, place: str, case: Case) -> Iterator[str]:
    """Name all differences; those of weights over two ranks only where they are more than noise."""
    if isinstance(expected, torch.Tensor):
        difference = float((found.double() - expected.double()).abs().max()) if expected.numel() else 0.0
        case.largest_difference = max(case.largest_difference, difference)
        if difference > (0.0 if case.num_ranks == 1 else 1e-6):
            yield f"{place} differs by {difference:.3g}"
    elif isinstance(expected, dict):
        for name in sorted(found.keys() | expected.keys(), key=str):
            if name not in found or name not in expected:
                yield f"{place}/{name} is {'lost' if name in expected else 'too many'}"
            else:
                yield from compare(found[name], expected[name], f"{place}/{name}", case)
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from compare(one, other, f"{place}/{number}", case)
    elif found != expected:
        yield f"{place}: {found!r:.80} instead of {expected!r:.80}"


def show(cases: list[Case]) -> None:
    """Print the table."""
    print(
        "| run | kills | lives | SIGKILL / SIGTERM | exit codes after SIGTERM | second writers | slowest end "
        "| difference | faults |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        by_signal = "; ".join(f"{name} {count}" for name, count in sorted(case.kills.items()))
        codes = "; ".join(f"{code} ({count}x)" for code, count in case.codes.most_common())
        second = "; ".join(f"{how} {count}" for how, count in case.second_writers.most_common())
        print(
            f"| {case.name} | {case.kills.total()} | {case.num_lives} | {by_signal} | {codes} | {second} "
            f"| {case.slowest_end:.1f} s | {case.largest_difference:.3g} | {len(case.faults)} |"
        )
    for case in cases:
        for fault in case.faults[:10]:
            print(f"{case.name}: {fault}")
    print(f"{sum(case.num_refused for case in cases)} times resumed with another setting")
    print(f"{sum(case.kills.total() for case in cases)} kills, {sum(len(case.faults) for case in cases)} faults")


def main() -> int:
    """Kill runs in turn until there were enough kills."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", nargs="*", help="names of runs (default: all)")
    given = parser.parse_args()
    sys.path.insert(0, str(HERE))
    cases = [case for case in make_cases() if given.cases is None or case.name in given.cases]
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as place:
        for case in cases:
            folder = Path(place) / f"{case.name} undisturbed"
            folder.mkdir()
            before = time.monotonic()
            ranks = start(case, folder)
            if not wait(ranks, 300) or any(rank.exitcode for rank in ranks):
                print((folder / "log.txt").read_text()[-3000:])
                return 1
            case.seconds = time.monotonic() - before
            case.expected = case.read(folder)
        while sum(case.kills.total() for case in cases) < given.kills:
            case = min(cases, key=lambda case: case.kills.total())
            folder = Path(place) / f"{case.name} {case.num_lives}"
            folder.mkdir()
            live(case, folder, chance)
            case.num_lives += 1
            print(f"{case.name}: {case.kills.total()} kills, {len(case.faults)} faults", file=sys.stderr, flush=True)
        show(cases)
    return 1 if any(case.faults for case in cases) else 0


if __name__ == "__main__":
    sys.exit(main())
