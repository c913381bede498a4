"""Scripts of ``examples/launch``, unchanged, with stand-ins for the commands of a cluster."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "launch"
SCRIPTS = [EXAMPLES / name for name in ("torchrun.sh", "slurm_fit.sbatch", "slurm_synthesize.sbatch")]
NUM_STEPS = 12
FIT = [
    f"--config={ROOT / 'tests' / 'faults' / 'fit.yaml'}", f"--trainer.max_steps={NUM_STEPS}",
    "--trust=watched", "--trainer.callbacks+=launched.SimulatedFailure", "--trainer.callbacks.step=7",
]  # fmt: skip
SRUN = """#!/usr/bin/env bash
# Starts one process for each task, sets its rank, and sends SIGTERM at the time limit.
[[ " $* " == *" --cpus-per-task=$SLURM_CPUS_PER_TASK "* ]] || exit 9 # a task would have a single CPU since 22.05
while [[ $1 == --* ]]; do shift; done
pids=()
for ((rank = 0; rank < SLURM_NTASKS; rank++)); do
  SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NODEID=0 "$@" &
  pids+=($!)
done
(
  for ((tick = 0; tick < 3000; tick++)); do
    if [[ -e time-out ]]; then rm time-out && kill -TERM "${pids[@]}" && exit; fi
    kill -0 "${pids[0]}" 2> /dev/null || exit
    sleep 0.1
  done
) &
highest=0
for pid in "${pids[@]}"; do
  wait "$pid" || { code=$?; ((code > highest)) && highest=$code; }
done
exit "$highest"
"""
SCONTROL = '#!/usr/bin/env bash\necho "$@" >> requeued\n'


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``synth2``, ``srun`` and ``scontrol``, to be first in ``PATH``."""
    folder = tmp_path_factory.mktemp("bin")
    synth2 = f'#!/usr/bin/env bash\nexec "{sys.executable}" -m synth2_lightning "$@"\n'
    for name, text in {"synth2": synth2, "srun": SRUN, "scontrol": SCONTROL}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(words: list[str], folder: Path, commands: Path, variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    here = os.environ
    path = f"{commands}:{Path(sys.executable).parent}:{here['PATH']}"
    modules = f"{ROOT / 'src'}:{ROOT / 'tests' / 'faults'}:{ROOT / 'tests' / 'integration'}"
    environment = here | {"PATH": path, "PYTHONPATH": modules, "OMP_NUM_THREADS": "1", **variables}
    with (folder / "output.txt").open("a") as file:
        return subprocess.Popen(words, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)


def run(words: list[str], folder: Path, commands: Path, variables: Mapping[str, str]) -> tuple[int, str]:
    """Run a command; return its exit code and the output of all processes in the folder."""
    process = start(words, folder, commands, variables)
    try:
        return process.wait(timeout=900), (folder / "output.txt").read_text()
    finally:
        process.terminate()  # no effect if it has ended


def by_torchrun(kind: str) -> tuple[list[str], dict[str, str]]:
    words = [str(EXAMPLES / "torchrun.sh"), *FIT, f"--trainer.callbacks.kind={kind}"]
    return words, {"PROCESSES": "2", "RDZV_ENDPOINT": f"127.0.0.1:{free_port()}"}


def torchrun(folder: Path, commands: Path, kind: str) -> tuple[int, str]:
    words, variables = by_torchrun(kind)
    return run(words, folder, commands, variables)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (checkpoint,) = folder.glob(f"runs/version_*/checkpoints/step={NUM_STEPS}.ckpt")
    state: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return state


def assert_same(found: Path, expected: Path) -> None:
    torch.testing.assert_close(weights(found), weights(expected), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, commands: Path) -> Path:
    """Return the folder of an uninterrupted run of two processes by torchrun."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, output = torchrun(folder, commands, "none")
    assert code == 0, output
    return folder


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_scripts_are_clean() -> None:
    outcome = subprocess.run(["shellcheck", *SCRIPTS], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout


@pytest.mark.parametrize(
    "script", [script for script in SCRIPTS if script.suffix == ".sbatch"], ids=lambda path: path.stem
)
def test_the_signal_is_sent_to_the_processes_and_logs_are_appended_to(script: Path) -> None:
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)", script.read_text(), re.MULTILINE))
    assert options["signal"] == "TERM@180"  # with "B:" it would end the script instead
    assert options["open-mode"] == "append"
    assert "requeue" in options


def test_everything_that_fits_is_one_command() -> None:
    for path in (EXAMPLES / "torchrun.sh", EXAMPLES / "slurm_fit.sbatch"):
        assert re.search(
            r"synth2 fit \"\$@\" --config overlays/strategy/ddp.yaml \\\n.*--ckpt_path last", path.read_text()
        )
    for pod in read_manifest()["pytorchReplicaSpecs"].values():
        words = pod["template"]["spec"]["containers"][0]["args"]
        assert words[words.index("--no-python") + 1 :][:4] == [
            "synth2", "fit", "--config=mixed.yaml", "--config=overlays/strategy/ddp.yaml",
        ]  # fmt: skip
        assert words[-1] == "--ckpt_path=last"


def read_manifest() -> dict[str, Any]:
    manifest = yaml.safe_load((EXAMPLES / "kubernetes_pytorchjob.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    spec: dict[str, Any] = manifest["spec"]
    return spec


def test_the_manifest_agrees_with_itself() -> None:
    spec = read_manifest()
    pods = spec["pytorchReplicaSpecs"]
    num_pods = sum(pod["replicas"] for pod in pods.values())
    assert pods["Master"]["replicas"] == 1
    assert spec["runPolicy"] == {"cleanPodPolicy": "Running", "backoffLimit": 100}
    for pod in pods.values():
        assert pod["restartPolicy"] == "OnFailure"
        inside = pod["template"]["spec"]
        (container,) = inside["containers"]
        assert container["name"] == "pytorch"
        words = container["args"]
        gpus = container["resources"]["limits"]["nvidia.com/gpu"]
        assert {f"--nproc-per-node={gpus}", f"--trainer.devices={gpus}", f"--trainer.num_nodes={num_pods}"} < set(words)
        assert f"--nnodes={num_pods}" in words
        assert spec["nprocPerNode"] == str(gpus)
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            volume["name"] for volume in inside["volumes"]
        }
        assert container["workingDir"].startswith("/runs/")  # on the volume that all pods share
        assert inside["terminationGracePeriodSeconds"] > 120  # longer than torchrun waits for its processes
    assert not re.search(r"(?i)(key|secret|password)\w*: *\S*[A-Za-z0-9/+]{16,}", yaml.safe_dump(spec))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_torchrun_restarts_after_a_process_failed(undisturbed: Path, commands: Path, tmp_path: Path) -> None:
    code, output = torchrun(tmp_path, commands, "death")
    assert code == 0, output
    assert (tmp_path / "happened").exists()
    assert "Restoring states from the checkpoint path" in output
    assert_same(tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_sigterm_to_torchrun_saves_the_step(undisturbed: Path, commands: Path, tmp_path: Path) -> None:
    words, variables = by_torchrun("time-out")
    process = start(words, tmp_path, commands, variables)
    while not (tmp_path / "time-out").exists():
        assert process.poll() is None, (tmp_path / "output.txt").read_text()
        time.sleep(0.1)
    process.terminate()
    assert process.wait(timeout=300) != 0
    # Validations save steps 4 and 8; the signal came after step 7.
    assert list(tmp_path.glob("runs/version_*/checkpoints/step=7.ckpt")), (tmp_path / "output.txt").read_text()
    code, output = torchrun(tmp_path, commands, "time-out")
    assert code == 0, output
    assert_same(tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_slurm_resumes_after_its_time_limit(undisturbed: Path, commands: Path, tmp_path: Path) -> None:
    job = {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "synth2-fit", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_CPUS_PER_TASK": "8", "SLURM_NNODES": "1", "SLURM_NODELIST": "localhost", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    words = ["bash", str(EXAMPLES / "slurm_fit.sbatch"), *FIT, "--trainer.callbacks.kind=time-out"]
    code, output = run(words, tmp_path, commands, job)
    assert code == 143, output
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
    assert not list(tmp_path.glob(f"runs/version_*/checkpoints/step={NUM_STEPS}.ckpt"))
    code, output = run(words, tmp_path, commands, job | {"SLURM_RESTART_COUNT": "1", "MASTER_PORT": str(free_port())})
    assert code == 0, output
    assert "Restoring states from the checkpoint path" in output
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"  # not a second time
    assert_same(tmp_path, undisturbed)


def start_pods(folders: tuple[Path, Path], commands: Path, kind: str) -> "list[subprocess.Popen[bytes]]":
    """Start the commands of the manifest's pods, with one process each."""
    port = str(free_port())
    pods = []
    for rank, pod in enumerate(read_manifest()["pytorchReplicaSpecs"].values()):
        (container,) = pod["template"]["spec"]["containers"]
        # Variables that Kubeflow's operator sets (pkg/controller.v1/pytorch/envvar.go); the kubelet replaces them in
        # arguments.
        given = {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "RANK": str(rank),
            "PET_NPROC_PER_NODE": "1", "PET_NODE_RANK": str(rank), "PET_NNODES": "2", "PYTHONUNBUFFERED": "0",
        }  # fmt: skip
        words = container["args"]
        for name, value in given.items():
            words = [word.replace(f"$({name})", value) for word in words]
        words = [word.replace("per-node=4", "per-node=1").replace("devices=4", "devices=1") for word in words]
        place = words.index("--config=mixed.yaml")
        words[place : place + 1] = [*FIT, f"--trainer.callbacks.kind={kind}"]
        pods.append(start([*container["command"], *words], folders[rank], commands, given))
    return pods


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_pods_resume_after_one_was_drained(undisturbed: Path, commands: Path, tmp_path: Path) -> None:
    pods = start_pods((tmp_path, tmp_path), commands, "time-out")
    while not (tmp_path / "time-out").exists():
        assert all(pod.poll() is None for pod in pods), (tmp_path / "output.txt").read_text()
        time.sleep(0.1)
    pods[0].terminate()
    codes = [pod.wait(timeout=300) for pod in pods]
    assert 0 not in codes, codes  # otherwise the kubelet does not restart the pod
    assert list(tmp_path.glob("runs/version_*/checkpoints/step=7.ckpt")), (tmp_path / "output.txt").read_text()
    for pod in start_pods((tmp_path, tmp_path), commands, "time-out"):
        assert pod.wait(timeout=900) == 0, (tmp_path / "output.txt").read_text()
    assert_same(tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_machines_that_find_different_checkpoints_do_not_train_apart(
    undisturbed: Path, commands: Path, tmp_path: Path
) -> None:
    folders = (tmp_path / "first", tmp_path / "second")
    shutil.copytree(undisturbed, folders[0], symlinks=True)
    pods = start_pods(folders, commands, "none")
    assert 0 not in [pod.wait(timeout=300) for pod in pods]
    for folder in folders:
        output = (folder / "output.txt").read_text()
        assert re.search(r"different checkpoints.*step=12\.ckpt.*checksum ", output)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_array_makes_what_one_job_makes(commands: Path, tmp_path: Path) -> None:
    captions = tmp_path / "captions.csv"
    captions.write_text("caption\n" + "a red circle\n" * 12)
    words = ["bash", str(EXAMPLES / "slurm_synthesize.sbatch"), "--config", str(tmp_path / "synthesize.yaml")]
    (tmp_path / "synthesize.yaml").write_text(
        yaml.safe_dump(
            {
                "trainer": {
                    "accelerator": "cpu",
                    "logger": False,
                    "callbacks": [
                        {
                            "class_path": "synth2_lightning.callbacks.shard_writer.ShardWriterCallback",
                            "init_args": {"folder": "shards"},
                        }
                    ],
                },
                "model": {
                    "class_path": "synth2_lightning.modules.synthesis.SynthesisModule",
                    "init_args": {"generator": {"class_path": "synth2_lightning.testing.TinyImageGenerator"}},
                },
                "data": {
                    "class_path": "synth2_lightning.datamodules.captions.CaptionDataModule",
                    "init_args": {
                        "captions": {
                            "class_path": "synth2_lightning.sources.caption_table.CaptionTable",
                            "init_args": {"table": str(captions)},
                        }
                    },
                },
            }
        )
    )
    job = {
        "SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "synth2-synthesize", "SLURM_NTASKS": "1", "SLURM_NNODES": "1",
        "SLURM_CPUS_PER_TASK": "4",
    }  # fmt: skip
    for task in range(2):
        array = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "2"}
        code, output = run(words, tmp_path, commands, job | array)
        assert code == 0, output
    assert not (tmp_path / "shards" / "manifest.json").exists()
    code, output = run(words, tmp_path, commands, job)
    assert code == 0, output
    assert re.search(r"\b12 \w+ are in shards", output)
    parts = sorted((tmp_path / "shards").glob("part-*.parquet"))
    assert [part.name for part in parts] == ["part-00000-00000.parquet", "part-00001-00000.parquet"]
    keys = [key for part in parts for key in pq.read_table(part)["key"].to_pylist()]
    assert sorted(keys) == [f"captions-{number:06d}" for number in range(1, 13)]
