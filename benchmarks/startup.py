"""Startup time of ``synth2``.

``--help`` and ``--version`` are timed as complete processes; ``fit --help`` alternates with a process that only imports
torch and lightning. Other load on the machine lengthens these times, but hardly the CPU seconds: those of ``--help``,
of a wrong path, a command without run file, a score of eight captions, ``init`` on eight photos, a mistyped value, and
``--print_config``.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from report import report

OURS = [sys.executable, "-m", "synth2_lightning"]
BARE = [sys.executable, "-c", "import torch, lightning.pytorch.cli"]


def seconds(command: list[str]) -> float:
    """Return the seconds of a command."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def cpu_seconds(words: Sequence[str], folder: Path, exit_code: int = 0) -> float:
    """Return the CPU seconds of a command that ends with the exit code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = subprocess.run([*OURS, *words], cwd=folder, capture_output=True, check=False).returncode
    if code != exit_code:
        raise RuntimeError(f"synth2 {' '.join(words)} ended with {code}; expected {exit_code}.")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_cpu(folder: Path) -> dict[str, float]:
    """Return the CPU seconds of commands that answer without training, by name."""
    numbers = range(8)
    for number in numbers:
        Image.new("RGB", (32, 32), (30 * number,) * 3).save(folder / f"{number}.png")
    content = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in numbers],
        "annotations": [{"image_id": number, "caption": f"a gray square {number}"} for number in numbers],
    }
    (folder / "captions.json").write_text(json.dumps(content))
    results = [{"image_id": number, "caption": "a square"} for number in numbers]
    (folder / "results.json").write_text(json.dumps(results))
    fit = ("fit", "--config", "mixed.yaml")
    return {
        "help": cpu_seconds(["--help"], folder),
        "wrong_path": cpu_seconds(["caption", "nowhere", "."], folder, 1),
        "no_run_file": cpu_seconds(["fit"], folder, 2),
        "score": cpu_seconds(["score", "results.json", "captions.json"], folder),
        "init": cpu_seconds(["init", "captions.json"], folder),
        "wrong_value": cpu_seconds([*fit, "--model.optimizer.lr=fast"], folder, 2),
        "print_config": cpu_seconds([*fit, "--print_config"], folder),
    }


def main() -> None:
    """Run the benchmark; ``seconds`` is the slower of ``--help`` and ``--version``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    repetitions = 1 if parser.parse_args().quick else 7
    with TemporaryDirectory() as folder:
        cpu = measure_cpu(Path(folder))
    times: dict[str, list[float]] = {"help": [], "version": [], "fit_help": [], "bare_imports": []}
    for _ in range(repetitions + 1):
        times["help"].append(seconds([*OURS, "--help"]))
        times["version"].append(seconds([*OURS, "--version"]))
        times["fit_help"].append(seconds([*OURS, "fit", "--help"]))
        times["bare_imports"].append(seconds(BARE))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}  # the first warms the disk cache
    report(
        "startup",
        medians["fit_help"] / medians["bare_imports"],
        seconds=max(medians["help"], medians["version"]),
        **{f"{name}_cpu_seconds": value for name, value in cpu.items()},
        **{f"{name}_seconds": value for name, value in medians.items()},
    )


if __name__ == "__main__":
    main()
