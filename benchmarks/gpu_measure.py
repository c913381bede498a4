"""Measurements of code on a GPU: time, memory, host stops, idle time, attention kernels. They also run on a CPU."""

import json
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import synth2_lightning
from report import peak_memory_mib

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HAS_GPU = DEVICE.type == "cuda"
_SOURCE = str(Path(synth2_lightning.__file__).parent)


def emit(**figures: object) -> None:
    """Print figures as a line of JSON at once, so that they are kept if what follows fails or is stopped."""
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps(rounded), flush=True)


def seconds_of(step: Callable[[], object], rounds: int, warmup: int = 2) -> float:
    """Return the median seconds of a call, until the device has finished; the first calls are not counted."""
    times = []
    for number in range(warmup + rounds):
        synchronize()
        start = time.perf_counter()
        step()
        synchronize()
        if number >= warmup:
            times.append(time.perf_counter() - start)
    return median(times)


def synchronize() -> None:
    """Wait until the GPU has finished, if there is one."""
    if HAS_GPU:
        torch.cuda.synchronize()


def reset_memory() -> None:
    """Free unused memory, and measure the peak anew."""
    if HAS_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float:
    """Return the peak memory in GiB: of tensors on the GPU since :func:`reset_memory`, or else of the process."""
    return torch.cuda.max_memory_allocated() / 2**30 if HAS_GPU else peak_memory_mib() / 2**10


def emit_if_it_fits(name: str, measure: Callable[[], dict[str, float]]) -> None:
    """Emit figures with a prefix; if the GPU has too little memory, emit that."""
    reset_memory()
    try:
        emit(**{f"{name}_{key}": value for key, value in measure().items()})
    except torch.OutOfMemoryError as error:
        emit(**{f"{name}_out_of_memory": str(error)[:200]})


def emit_profile(name: str, run: Callable[[], object], times: int = 1) -> None:
    """Emit the figures of :func:`profiled` of some calls with a prefix; if the profiler fails, emit that."""
    try:
        with profiled() as figures:
            for _ in range(times):
                run()
        emit(**{f"{name}_{key}": value for key, value in figures.items()})
    except RuntimeError as error:
        emit(**{f"{name}_profile_error": str(error)[:200]})


@contextmanager
def count_host_stops() -> Iterator[Counter[str]]:
    """Count operations that make the CPU wait for the GPU, by the innermost line of the package that caused them.

    The counts are from ``torch.cuda.set_sync_debug_mode``, which covers most of such operations. Without a GPU there
    are none.
    """
    counts: Counter[str] = Counter()
    if not HAS_GPU:
        yield counts
        return

    def count(message: Warning | str, *_: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            counts[_innermost_line()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = count  # type: ignore[assignment]  # restored by the context
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield counts
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _innermost_line() -> str:
    stack = traceback.extract_stack(sys._getframe(3))  # without this function, its caller, and that of warnings
    frame = next((frame for frame in reversed(stack) if frame.filename.startswith(_SOURCE)), stack[-1])
    return f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno}"


@contextmanager
def profiled() -> Iterator[dict[str, Any]]:
    """Profile the device within the context; then fill the figures that it yields.

    ``gpu_idle`` is the fraction of time between the first and the last kernel in which no kernel runs; ``attention``
    counts the implementations that ``scaled_dot_product_attention`` chose; ``kernels`` is the number of kernels.
    """
    figures: dict[str, Any] = {}
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if HAS_GPU else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        yield figures
        synchronize()
    events = profiler.events() or []
    attention = Counter(
        event.name.removeprefix("aten::") for event in events if event.name.startswith("aten::_scaled_dot_product_")
    )
    intervals = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == "CUDA" and not event.is_user_annotation
    )
    figures |= {"attention": dict(attention), "kernels": len(intervals), "gpu_idle": idle_fraction(intervals)}


def idle_fraction(intervals: list[tuple[float, float]]) -> float | None:
    """Return the fraction of the whole time that no interval covers; None without intervals.

    Args:
        intervals: Starts and ends, ordered by their starts.

    Example:
        >>> idle_fraction([(0.0, 4.0), (1.0, 2.0), (6.0, 10.0)])
        0.2
    """
    if not intervals:
        return None
    busy, until = 0.0, intervals[0][0]
    for start, end in intervals:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    whole = until - intervals[0][0]
    return 1 - busy / whole if whole else 0.0
