"""A run that was stopped and resumed ends with the results of an uninterrupted run."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from watched import BatchRecorder

from synth2_lightning.cli import main
from synth2_lightning.cli.trainer import run_trainer

HERE = Path(__file__).parent
WANTED = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "loops", "callbacks", "seed")
FIT = ("--config", str(HERE / "fit.yaml"), "--trust", "watched")


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a plan, to be filled with the steps after which the recorder stops the run once, and how."""
    record = BatchRecorder.on_train_batch_end
    plan: dict[int, str] = {}

    def on_train_batch_end(self: Any, trainer: Any, *args: Any) -> None:
        record(self, trainer, *args)
        match plan.pop(trainer.global_step, None):
            case "SIGTERM":
                os.kill(os.getpid(), signal.SIGTERM)
            case "ctrl-C":
                raise KeyboardInterrupt
            case "error":
                raise RuntimeError("an error of a user's callback")

    monkeypatch.setattr(BatchRecorder, "on_train_batch_end", on_train_batch_end)
    return plan


def fit(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    run_trainer(["fit", *FIT, "--trainer.max_steps=12", *words, "--ckpt_path=last"])


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that returns the folder of an uninterrupted run; each run is made once."""

    @cache
    def run(*words: str) -> Path:
        folder = tmp_path_factory.mktemp("whole")
        with pytest.MonkeyPatch.context() as monkeypatch:
            fit(folder, monkeypatch, *words)
        return folder

    return run


def outcome(folder: Path) -> tuple[list[str], dict[str, Any]]:
    lines = (folder / "batches-0.jsonl").read_text().splitlines()
    content = torch.load(next(folder.glob("runs/version_0/checkpoints/step=12.ckpt")), weights_only=True)
    return sorted(set(lines), key=lambda line: int(json.loads(line)["batch"])), {name: content[name] for name in WANTED}


REAL = ("--data.init_args.synthetic_fraction.init_args.start=0", "--data.init_args.synthetic_fraction.init_args.end=0")
SYNTHETIC = (
    "--data.init_args.synthetic_fraction.init_args.start=1",
    "--data.init_args.synthetic_fraction.init_args.end=1",
)
WORKERS = ("--data.init_args.num_workers=2",)
MIRRORED = (*WORKERS, "--data.init_args.mirroring=synth2_lightning.datamodules.mirroring.Mirroring")
BY_EPOCH = (
    "--trainer.max_steps=-1", "--trainer.max_epochs=4", "--trainer.limit_val_batches=0",
    "--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=1.0", "--trainer.limit_train_batches=3",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # such as of a folder of checkpoints that is not empty
@pytest.mark.parametrize(
    ("how", "step", "words"),
    [
        ("SIGTERM", 6, WORKERS),
        pytest.param("error", 2, (), marks=pytest.mark.slow, id="with nothing saved"),
        pytest.param("SIGTERM", 4, (), marks=pytest.mark.slow, id="before the first validation"),
        pytest.param("SIGTERM", 8, WORKERS, marks=pytest.mark.slow, id="before a validation"),
        pytest.param("SIGTERM", 9, (), marks=pytest.mark.slow, id="at the end of an epoch"),
        pytest.param("SIGTERM", 5, BY_EPOCH, marks=pytest.mark.slow, id="with a schedule that uses the epoch length"),
        pytest.param("error", 8, BY_EPOCH, marks=pytest.mark.slow, id="from the end of an epoch"),
        pytest.param("error", 11, REAL, marks=pytest.mark.slow, id="photos alone"),
        pytest.param("ctrl-C", 7, SYNTHETIC, marks=pytest.mark.slow, id="image tokens alone"),
        pytest.param("SIGTERM", 7, MIRRORED, marks=pytest.mark.slow, id="mirrored images"),
    ],
)
def test_a_run_that_was_stopped_ends_as_if_it_had_not(
    how: str,
    step: int,
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_at: dict[int, str],
    whole_run: Callable[..., Path],
) -> None:
    whole = whole_run(*words)
    stop_at[step] = how
    with pytest.raises(RuntimeError if how == "error" else SystemExit) as stop:
        fit(tmp_path / "stopped", monkeypatch, *words)
    if isinstance(stop.value, SystemExit):
        assert stop.value.code == (143 if how == "SIGTERM" else 1)
    if not list((tmp_path / "stopped").rglob("*.ckpt")):
        (tmp_path / "stopped" / "runs" / "version_0").rename(tmp_path / "log of the run that saved nothing")
    fit(tmp_path / "stopped", monkeypatch, *words)

    batches, state = outcome(tmp_path / "stopped")
    expected_batches, expected = outcome(whole)
    assert len(batches) == 12
    assert batches == expected_batches
    assert_equal(state, expected)
    scores = [sorted(path.parent.name for path in run.rglob("protocol.json")) for run in (whole, tmp_path / "stopped")]
    assert scores[0] == scores[1]


def assert_equal(found: Any, expected: Any, place: str = "") -> None:
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), place
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for name in expected:
            assert_equal(found[name], expected[name], f"{place}/{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_equal(one, other, f"{place}/{number}")
    else:
        assert found == expected, place


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_last_checkpoint_costs_no_more_than_the_steps_since_the_one_before(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_at: dict[int, str],
    whole_run: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = whole_run()
    stop_at[10] = "SIGTERM"
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path / "stopped", monkeypatch)
    assert stop.value.code == 143
    newest = tmp_path / "stopped" / "runs" / "version_0" / "checkpoints" / "step=10.ckpt"
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.raises(SystemExit):
        main(["fit", *FIT, f"--ckpt_path={newest}"])
    error = " ".join(capsys.readouterr().err.split())
    # After step 8, the next checkpoint would have been that of step 11.
    assert re.search(r"step=10\.ckpt.*damaged.*step=8\.ckpt", error)

    with pytest.warns(UserWarning, match=r"[Dd]amaged.*step=10\.ckpt.*step=8\.ckpt"):
        fit(tmp_path / "stopped", monkeypatch)
    assert_equal(outcome(tmp_path / "stopped")[1]["state_dict"], outcome(whole)[1]["state_dict"])


def files_of(run: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in sorted(run.rglob("*")) if not path.is_dir())  # a lock changes the time of a folder
    return {path.name: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in files}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_last_is_the_newest_run_of_the_same_settings_and_no_other_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    begin = ["fit", *FIT, "--trainer.max_steps=4"]
    other = ["--seed_everything=99", "--data.init_args.batch_size=2"]
    run_trainer(begin)
    run_trainer([*begin, *other])
    before = files_of(runs / "version_1")
    with pytest.warns(UserWarning, match=r"runs/version_1\b.*seed_everything: 99 -> 7"):
        fit(tmp_path, monkeypatch, "--trainer.max_steps=8")
    assert torch.load(runs / "version_0" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 8
    assert files_of(runs / "version_1") == before

    first = files_of(runs / "version_0")
    for change, line in {
        "--seed_everything=8": r"seed_everything: \d+ -> 8",
        "--model.init_args.optimizer.init_args.lr=0.5": r"optimizer\.init_args\.lr: 0\.01 -> 0\.5",
        "--data.init_args.synthetic.init_args.limit=10": r"limit: 11 -> 10",
        "--trainer.accumulate_grad_batches=2": r"trainer\.accumulate_grad_batches: 1 -> 2",
    }.items():
        with pytest.raises(ValueError, match=line):
            fit(tmp_path, monkeypatch, change)
        path = f"--ckpt_path={runs / 'version_0' / 'checkpoints' / 'step=8.ckpt'}"
        with pytest.raises(ValueError, match=line):
            run_trainer([*begin, change, path])

    fit(tmp_path, monkeypatch, "--trainer.max_steps=8")
    assert re.search(r"finished.*\b8 steps\b", caplog.text)
    assert files_of(runs / "version_0") == first

    with pytest.warns(UserWarning, match=r"lr: 0\.01 -> 0\.5"):
        fit(tmp_path, monkeypatch, *other, "--resume_with_changes=true", "--model.init_args.optimizer.init_args.lr=0.5")
    (newest,) = runs.glob("version_*/checkpoints/step=12.ckpt")
    assert newest.parents[1].name not in ("version_0", "version_1")
    assert "resume_with_changes" not in (newest.parents[1] / "config.yaml").read_text()
    assert files_of(runs / "version_0") == first
    assert files_of(runs / "version_1") == before


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_best_is_the_checkpoint_with_the_best_score_for_all_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*FIT, "--ckpt_path=best"]
    with pytest.raises(FileNotFoundError, match=r"no checkpoint\b.*val/loss"):
        run_trainer(["validate", *words])
    run_trainer(["fit", *FIT, "--trainer.max_steps=6"])
    for command in ("validate", "fit"):
        used = run_trainer([command, *words, "--trainer.max_steps=7"]).trainer.ckpt_path
        assert Path(str(used)).name == "best-step=4.ckpt"
    with pytest.raises(ValueError, match=r"num_latents: 2 -> 3"):
        run_trainer(["validate", *words, "--model.init_args.resampler.init_args.num_latents=3"])


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_what_is_killed_at_random_moments_loses_and_repeats_nothing() -> None:
    words = [sys.executable, str(HERE / "kill_runs.py"), "--kills", "8"]
    finished = subprocess.run(words, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert " 0 faults" in finished.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_fewer_ranks_train_on_the_rest_of_the_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = (
        "--data.init_args.real.init_args.train.init_args.num_images=8",
        "--data.init_args.synthetic.init_args.limit=40",
        "--data.init_args.synthetic_fraction.init_args.start=0.5",
        "--data.init_args.synthetic_fraction.init_args.end=0.5",
    )
    subprocess.run(
        [
            sys.executable, "-m", "synth2_lightning", "fit", *FIT, *sets,
            "--trainer.max_steps=2", "--trainer.devices=2", "--trainer.strategy=ddp",
        ],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(HERE)])}, check=True,
    )  # fmt: skip
    fit(tmp_path, monkeypatch, *sets, "--trainer.max_steps=18")
    rows = [json.loads(line) for rank in range(2) for line in (tmp_path / f"batches-{rank}.jsonl").open()]
    assert sorted(row["step"] for row in rows) == [1, 1, 2, 2, *range(3, 19)]
    seen = Counter(key for row in rows for key in row["keys"])
    # An image of Scenes has five captions, each of which is one pair.
    assert sorted(seen.values()) == [1] * 40 + [5] * 8


def is_gone_soon(group: int) -> bool:
    for _ in range(600):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("to_all", [True, False], ids=["to all processes", "to the first one"])
@pytest.mark.parametrize(
    ("words", "begun", "kept"),
    [
        (("fit", *FIT, "--trainer.max_steps=5000"), "**/step=8.ckpt", "**/last.ckpt"),
        (
            ("predict", f"--config={HERE / 'captions.yaml'}", "--trust=watched"),
            "out/part-00001-*",
            "out/part-0000[01]-*",
        ),
    ],
    ids=["fit", "predict"],
)
def test_sigterm_ends_two_ranks(words: tuple[str, ...], begun: str, kept: str, to_all: bool, tmp_path: Path) -> None:
    with (tmp_path / "log.txt").open("w") as log:
        run = subprocess.Popen(
            [sys.executable, "-m", "synth2_lightning", *words, "--trainer.devices=2", "--trainer.strategy=ddp"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(HERE)])},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            while not list(tmp_path.glob(begun)):
                assert run.poll() is None, (tmp_path / "log.txt").read_text()[-3000:]
                time.sleep(0.1)
            (os.killpg if to_all else os.kill)(run.pid, signal.SIGTERM)
            assert run.wait(timeout=90) == 143, (tmp_path / "log.txt").read_text()[-3000:]
            assert is_gone_soon(run.pid)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    assert list(tmp_path.glob(kept))
