"""Startup time of ``synth2``.

``--help`` and ``--version`` are timed as complete processes; ``fit --help`` alternates with a process that only imports
torch and lightning. Other load on the machine lengthens these times; ``help_cpu_seconds`` it does not.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

from report import report

OURS = [sys.executable, "-m", "synth2_lightning"]
BARE = [sys.executable, "-c", "import torch, lightning.pytorch.cli"]


def seconds(command: list[str]) -> float:
    """Return the seconds of a command."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def cpu_seconds() -> float:
    """Return the CPU time of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run the benchmark; ``seconds`` is the slower of ``--help`` and ``--version``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    repetitions = 1 if parser.parse_args().quick else 7
    cpu = cpu_seconds()
    subprocess.run([*OURS, "--help"], check=True, stdout=subprocess.DEVNULL)
    help_cpu_seconds = cpu_seconds() - cpu
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
        help_cpu_seconds=help_cpu_seconds,
        **{f"{name}_seconds": value for name, value in medians.items()},
    )


if __name__ == "__main__":
    main()
