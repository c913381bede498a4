"""Runs resume under another strategy, with the results of an uninterrupted run."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from fsdp_runs import fit
from safetensors.torch import load_file
from torch import Tensor

from ranks import TOLERANCE, compare, list_cases, make_module, make_tokenizer, run_ranks
from synth2_lightning.cli import main

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture
def _double_precision() -> Iterator[None]:
    """Train in double precision, because training amplifies rounding errors."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def weights(file: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(file, weights_only=True)["state_dict"]
    return state


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-9, rtol=0, msg=name)


def start(script: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a script that Lightning's launcher starts a second time; return when all its processes have ended."""
    path = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT / "src")])
    with tempfile.TemporaryFile("w+") as errors:  # no pipe: a suspended process would keep it open
        ran = subprocess.run(
            [sys.executable, str(HERE / script), *words],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdout=errors, stderr=errors, text=True, timeout=600, check=False,
        )  # fmt: skip
        deadline = time.monotonic() + 90
        while True:
            errors.seek(0)
            output = errors.read()
            if (
                script != "dying_rank.py"
                or "is lost" in output
                or "Child process" in output
                or time.monotonic() > deadline
            ):
                break
            time.sleep(1)
    return subprocess.CompletedProcess(ran.args, ran.returncode, "", output)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_double_precision")
def test_fsdp_resumes_in_one_process_and_one_process_under_fsdp(tmp_path: Path) -> None:
    one = fit(2, 1)
    one.save_checkpoint(tmp_path / "one.ckpt")
    one = fit(4, 1, ckpt_path=tmp_path / "one.ckpt")
    one.save_checkpoint(tmp_path / "one_end.ckpt")
    expected = weights(tmp_path / "one_end.ckpt")

    ran = start("fsdp_runs.py", str(tmp_path))
    assert ran.returncode == 0, ran.stderr[-4000:]

    for merged in ("merged.ckpt", "merged.safetensors"):
        main(["consolidate", str(tmp_path / "sharded.ckpt"), "--out", str(tmp_path / merged)])
    main(["consolidate", str(tmp_path / "sharded_end.ckpt"), "--out", str(tmp_path / "sharded_end_merged.ckpt")])
    whole = torch.load(tmp_path / "whole.pt", weights_only=True)
    for found in (weights(tmp_path / "merged.ckpt"), load_file(tmp_path / "merged.safetensors")):
        assert found.keys() == whole.keys()
        assert all(torch.equal(found[name], weight) for name, weight in whole.items())

    module = make_module(make_tokenizer())
    module.configure_model()
    module.load_state_dict(load_file(tmp_path / "merged.safetensors"))
    one = fit(4, 1, ckpt_path=tmp_path / "merged.ckpt")
    one.save_checkpoint(tmp_path / "fsdp_then_one.ckpt")
    for end in ("sharded_end_merged", "from_one", "fsdp_then_one"):
        assert_close(weights(tmp_path / f"{end}.ckpt"), expected)
    assert any((expected[name] - weight).abs().max() > 1e-3 for name, weight in whole.items())


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_fsdp1_learns_what_ddp_learns_and_writes_whole_checkpoints(tmp_path: Path) -> None:
    faults = ROOT / "tests" / "faults"
    run_file = yaml.safe_load((faults / "fit.yaml").read_text())
    callbacks = run_file["trainer"]["callbacks"]
    run_file["trainer"]["callbacks"] = [one for one in callbacks if "WeightAveraging" not in one["class_path"]]
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(run_file))
    fsdp1 = yaml.safe_load((ROOT / "configs" / "overlays" / "fsdp1.yaml").read_text())["trainer"]["strategy"]
    strategies = {"ddp": "ddp", "fsdp1": {**fsdp1, "class_path": "cpu_fsdp.CpuFSDPStrategy"}}
    for name, strategy in strategies.items():
        (tmp_path / name).mkdir()
        settings = {"strategy": strategy, "devices": 2, "max_steps": 8}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"trainer": settings}))
        ran = subprocess.run(
            [sys.executable, "-m", "synth2_lightning", "fit", "--config=../fit.yaml", f"--config=../{name}.yaml",
             "--trust=watched", "--trust=cpu_fsdp"],
            cwd=tmp_path / name, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", HERE, faults)))},
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr[-4000:]
    files = [tmp_path / name / "runs" / "version_0" / "checkpoints" / "step=8.ckpt" for name in strategies]
    expected, found = map(weights, files)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=0, msg=name)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("rank", "how"), [(0, "SIGKILL"), (1, "SIGKILL"), (1, "SIGSTOP")])
def test_a_failed_process_ends_the_others_which_name_it(rank: int, how: str) -> None:
    ran = start("dying_rank.py", str(rank), how)
    assert ran.returncode != 0
    if how == "SIGSTOP":
        os.kill(int(re.findall(r"pid (\d+)", ran.stderr)[0]), signal.SIGKILL)  # nothing else ends it
    # Lightning's launcher checks its processes every five seconds, and may be faster.
    launcher = f"[rank: {rank}] Child process with PID" in ran.stderr
    assert launcher or f"rror: Process {rank} of 2" in ran.stderr, ran.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_processes_learn_what_one_learns_and_never_wait_for_ever(num_ranks: int) -> None:
    cases = list_cases()[::5]
    single, many = run_ranks(1, cases, timeout=200), run_ranks(num_ranks, cases, timeout=200)
    assert len(single) == len(many) == len(cases)
    for one, several in zip(single, many, strict=True):
        loss, cider = compare(one, several)
        assert loss < TOLERANCE
        assert cider == 0
