"""The last line of every benchmark: one JSON object with the results, the machine and the package versions.

Scripts are run as ``python benchmarks/NAME.py``, which puts this folder on the path for ``from report import report``.
"""

import json
import os
import platform
import resource
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).with_name("results")
_ROOT = Path(__file__).parents[1]

# Versions are read from metadata, because imports take seconds, and memory that a benchmark may measure.
_PACKAGES = (
    "synth2-lightning",
    "torch",
    "lightning",
    "torchmetrics",
    "transformers",
    "diffusers",
    "datasets",
    "timm",
    "open_clip_torch",
    "pycocoevalcap",
    "vector-quantize-pytorch",
    "muse-maskgit-pytorch",
    "numpy",
)


def report(benchmark: str, ratio: float | None, **figures: object) -> None:
    """Print the result as one line of JSON.

    Args:
        benchmark: Name of the benchmark, such as ``"cider"``.
        ratio: Our rate over the baseline's, from the same run; above one means that ours is faster. With
            ``lower_is_better`` in the figures, our time over the baseline's. ``None`` if there is none.
        figures: The raw figures of both sides, named with their unit, such as ``ours_seconds``.
    """
    sys.stderr.flush()  # so that this line is the last one
    print(json.dumps(_make_line(benchmark, ratio, figures)), flush=True)


def save(benchmark: str, ratio: float | None, **figures: object) -> None:
    """Print the result, and write it with its origin to ``benchmarks/results/``, from which ``documents.py`` reads it.

    The arguments are those of :func:`report`.
    """
    origin = {"command": shlex.join(["python", f"benchmarks/{benchmark}.py", *sys.argv[1:]]), "commit": commit()}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(_make_line(benchmark, ratio, figures) | origin, indent=1)
    (RESULTS / f"{benchmark}.json").write_text(f"{text}\n", "utf-8")
    report(benchmark, ratio, **figures)


def _make_line(benchmark: str, ratio: float | None, figures: Mapping[str, object]) -> dict[str, object]:
    return {"benchmark": benchmark, "ratio": ratio, **figures, "versions": versions(), "machine": machine()}


def commit() -> str | None:
    """Return the commit of the repository, with ``-dirty`` if code or run files differ; ``None`` outside of Git."""
    changed = ("status", "--porcelain", "--untracked-files=no", "--", "src", "configs", "benchmarks/*.py")
    try:
        head, changes = (
            subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), changed)
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return f"{head}-dirty" if changes else head


def peak_memory_mib() -> float:
    """Return the peak resident memory of this process in MiB, without child processes."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss of a child includes the parent's memory at the fork
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return round(int(line.split()[1]) / 1024, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bytes_per_unit = 1 if sys.platform == "darwin" else 1024
    return round(peak * bytes_per_unit / 2**20, 1)


def versions() -> dict[str, str | None]:
    """Return the versions of relevant packages; ``None`` if not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def machine() -> dict[str, str | int | None]:
    """Return the CPU, the number of cores available to this process, the GPU if torch is imported, and the system."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count()
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    return {"cpu": _cpu_model(), "cores": cores, "gpu": gpu, "system": platform.platform()}


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
