"""Training, sampling and captioning on a GPU: does it run, how fast is it, and where does the GPU wait?

    python benchmarks/gpu.py            # at most 8 minutes on one H200
    python benchmarks/gpu.py --quick    # tiny sizes, also on a CPU

All weights and images are random or ship with the package; nothing is downloaded. Each section runs in a process of its
own, except with ``--quick``, because an error of CUDA makes a process useless. A section that does not fit into the
remaining time is skipped or stopped. The last line has the figures of all sections, and the error of a section that
failed beside what it had measured before. ``ratio`` is our images per second over those of diffusers, for the largest
batch that both finished.

| section | figures |
|---|---|
| smoke | seconds of ``synth2 fit``, of its resumption, of ``synth2 caption``, of captions by a GGUF language model |
| train | milliseconds, peak memory and MFU of a training step of MaskGit with 624 million parameters |
| sample | images per second of 24 guided steps; of aMUSEd's transformer in diffusers' loop |
| caption | milliseconds of a captioner's step on tokens (also compiled), on pixels, of tokenization; tokens by beams |
| host | host stops per step, by line of the package; idle time of the GPU; attention kernels |
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from importlib import import_module
from io import StringIO
from tempfile import TemporaryFile
from typing import Any

from report import report

SECTIONS = {
    "smoke": ("gpu_runs", 130),
    "train": ("gpu_muse", 130),
    "sample": ("gpu_muse", 130),
    "caption": ("gpu_captioner", 90),
    "host": ("gpu_runs", 90),
}
"""Module of each section, which is a function of the same name, and the seconds after which it is stopped."""

MIN_SECONDS = 20
"""A section does not start with less time left: it would spend it on imports."""


def run_sections(launch: Callable[[str, float], dict[str, Any]], names: list[str], seconds: float) -> dict[str, Any]:
    """Run sections one after another, and return the figures of each.

    Args:
        launch: Runs a section within a number of seconds, and returns its figures.
        names: Sections, in order.
        seconds: Time for all of them.
    """
    end = time.monotonic() + seconds
    results: dict[str, Any] = {}
    for name in names:
        left = end - time.monotonic()
        if left < MIN_SECONDS:
            results[name] = "skipped: time"
            continue
        start = time.monotonic()
        results[name] = launch(name, left)
        results[name]["section_seconds"] = round(time.monotonic() - start, 1)
        print(json.dumps({name: results[name]}), file=sys.stderr, flush=True)
    return results


def run_process(command: list[str], seconds: float) -> dict[str, Any]:
    """Run a command, and return the figures that it prints as lines of JSON, with its error if it fails."""
    with TemporaryFile("w+") as output, TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, start_new_session=True)
        try:
            process.wait(seconds)
            error = None
        except subprocess.TimeoutExpired:
            error = f"stopped after {seconds:.0f} seconds"
        finally:
            _kill_group(process)
        output.seek(0)
        errors.seek(0)
        figures = parse_figures(output.read())
        if process.returncode and error is None:
            error = f"exit code {process.returncode}: {errors.read()[-1500:]}"
    return figures if error is None else figures | {"error": error}


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def parse_figures(output: str) -> dict[str, Any]:
    """Return the figures in all lines that are JSON objects."""
    figures: dict[str, Any] = {}
    for line in output.splitlines():
        start = line.find('{"')  # after what a progress bar wrote without a line break
        try:
            figures |= json.loads(line[start:]) if start >= 0 else {}
        except json.JSONDecodeError:
            continue
    return figures


def find_ratio(figures: Any) -> float:
    """Return our rate of sampling over that of diffusers, for the largest batch that has both; NaN without one."""
    ratio = float("nan")
    for name, rate in figures.items() if isinstance(figures, dict) else ():
        variant, _, rest = name.partition("_")
        rival = figures.get(f"diffusers_{rest}")
        if variant in ("eager", "compiled") and rest.endswith("images_per_second") and rival:
            ratio = rate / rival  # in the order of measurement: compiled is last, and within it the largest batch
    return round(ratio, 3)


def run_here(name: str, is_quick: bool) -> dict[str, Any]:
    """Run a section in this process, and return its figures, with its error if it fails."""
    output = StringIO()
    error = {}
    with redirect_stdout(output):
        try:
            section(name)(is_quick)
        except (Exception, SystemExit) as failure:
            error = {"error": f"{type(failure).__name__}: {str(failure)[-1500:]}"}
    return parse_figures(output.getvalue()) | error


def section(name: str) -> Callable[[bool], None]:
    """Return the function of a section."""
    function: Callable[[bool], None] = getattr(import_module(SECTIONS[name][0]), name)
    return function


def main() -> None:
    """Run all sections, or one of them in a process that this script started."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, in one process")
    parser.add_argument("--seconds", type=float, default=470, help="time for all sections")
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--only", choices=list(SECTIONS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        section(args.only)(args.quick)
        return

    def launch(name: str, left: float) -> dict[str, Any]:
        if args.quick:
            return run_here(name, is_quick=True)
        return run_process([sys.executable, __file__, "--only", name], min(left, SECTIONS[name][1]))

    results = run_sections(launch, args.sections, args.seconds)
    report("gpu", find_ratio(results.get("sample")), is_quick=args.quick, sections=results)


if __name__ == "__main__":
    main()
