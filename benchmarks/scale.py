"""What a rank pays per step and at the start of a run, as ranks and pairs grow. Prints one JSON line.

Ranks are simulated: the last of 1, 8, 64 and 512 ranks, with 64 pairs each. Pairs are those of tars of 10,000 samples
whose indexes are in the cache; the tars themselves are sparse files, so that no image is decoded. Each start is that of
a new process: opening the indexes, the data module, its sampler, the first batch, and the checksum of a resumed run.

The baseline is the former way, implemented here: a step samples masks of the global batch and slices its own; a start
reads the headers and captions of all tars into Python objects (measured on few samples, and scaled to all), and
shuffles a list of all pairs.

Times are of the CPU, of one thread. ``private_mib`` is what a process allocates; the pages of indexes (``mapped_mib``)
are shared by all processes of a machine. Shuffling all pairs once per pass is listed apart, divided by the steps of a
pass (``shuffle_ms``), because these become fewer with more ranks. It fails if a step of many ranks costs 1.5 times that
of one, if shuffling takes 5 ms a step, if a start takes 10 seconds or 1 GB, or if a resumed run has other batches.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from report import report
from synth2_lightning.datamodules.real import RealDataModule
from synth2_lightning.datamodules.sampling import StratifiedBatchSampler
from synth2_lightning.io.index_files import Index
from synth2_lightning.nn.masking import sample_mask
from synth2_lightning.sources.tar_files import TarFile
from synth2_lightning.sources.tar_index import SCHEMA, open_tar_index
from synth2_lightning.sources.webdataset import TarSource
from synth2_lightning.training.seeding import StepSeeds

BATCH_SIZE, NUM_TOKENS = 64, 256
PER_TAR = 10_000
MAX_GROWTH, MAX_SHUFFLE_MS, MAX_SECONDS, MAX_MIB = 1.5, 5.0, 10.0, 1e9 / 2**20
LATE_STEP = 1_000_000
MIB = 2**20


def write_tars(folder: Path, num_pairs: int) -> None:
    """Write sparse tars, and their indexes to the cache."""
    folder.mkdir()
    for start in range(0, num_pairs, PER_TAR):
        path = folder / f"{start // PER_TAR:05d}.tar"
        num_samples = min(PER_TAR, num_pairs - start)
        with path.open("wb") as file:
            file.truncate(2048 * num_samples)
        open_tar_index(TarFile.of_path(path), scan=partial(make_index, range(start, start + num_samples)))


def make_index(rows: range, _: TarFile) -> Index:
    """Return the index of a tar with one caption of 60 characters per image."""
    key = pc.utf8_lpad(pa.array(rows).cast(pa.large_string()), 9, "0")
    empty, text = (
        pa.scalar(value, pa.large_string()) for value in ("", "a photo of a red circle to the left of a blue square, ")
    )
    captions = pc.binary_join_element_wise(text, key, empty)
    hashes = np.random.default_rng(rows.start).integers(0, 2**63, len(rows)).astype(np.uint64)
    columns = {
        "key": key,
        "hash": pa.array(hashes),
        "captions": pa.LargeListArray.from_arrays(np.arange(len(rows) + 1), captions),
        "member": pc.binary_join_element_wise(key, pa.scalar(".jpg", pa.large_string()), empty),
        "offset": pa.array(np.arange(len(rows)) * 2048 + 512),
        "size": pa.array(np.full(len(rows), 500)),
    }
    return Index(pa.record_batch(columns, SCHEMA), {})


def measure_start(folder: Path) -> dict[str, Any]:
    """Return CPU seconds and memory of a start of this process, as one of eight ranks."""
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        begin = time.process_time()
        yield
        seconds[name] = round(time.process_time() - begin, 3)

    before = read_memory()
    with peak_private() as peak:
        source = TarSource(str(folder / "*.tar"))
        data = RealDataModule(source, batch_size=BATCH_SIZE, image_size=256, num_workers=0)
        with stage("index"):
            data.setup("fit")
        with stage("sampler"):
            sampler = data.train_dataloader().sampler
            assert isinstance(sampler, StratifiedBatchSampler)
            items = sampler.batch(0)
        with stage("read_batch"):  # captions and offsets, without the images
            for item in items:
                source.captions(item)
                source.key(item)
        with stage("checksum"):
            data.fingerprint()
    return {
        "pairs": len(source),
        "cpu_seconds": round(sum(seconds.values()), 3),
        "stages": seconds,
        "private_mib": round((peak[0] - before["RssAnon"]) / MIB, 1),
        "mapped_mib": round((read_memory()["RssFile"] - before["RssFile"]) / MIB, 1),
        "imports_mib": round(before["RssAnon"] / MIB, 1),
        "checkpoint_bytes": len(json.dumps(data.state_dict())),
    }


@contextmanager
def peak_private() -> Iterator[list[int]]:
    """Yield a list whose member becomes the peak of private memory in the context, sampled every 5 ms."""
    peak, is_over = [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.005):
            peak[0] = max(peak[0], read_memory()["RssAnon"])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        peak[0] = max(peak[0], read_memory()["RssAnon"])
        is_over.set()
        thread.join()


def read_memory() -> dict[str, int]:
    """Return private (``RssAnon``) and file-mapped (``RssFile``) resident memory in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = (line.split() for line in lines if line.startswith(("RssAnon:", "RssFile:")))
    return {name.rstrip(":"): 1024 * int(size) for name, size, _ in fields}


def start_process(folder: Path) -> dict[str, Any]:
    """Return :func:`measure_start` of a new process."""
    command = [sys.executable, __file__, "--start", str(folder)]
    outcome = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    return result


def measure_former_start(folder: Path, num_samples: int) -> dict[str, float]:
    """Return CPU seconds and private bytes per sample of the former way: Python objects of all members."""
    path = folder / "former.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(num_samples):
            for suffix, content in (
                ("jpg", b"x" * 500),
                ("txt", b"a photo of a red circle to the left of a blue square"),
            ):
                member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
    before, begin = read_memory()["RssAnon"], time.process_time()
    images: dict[str, dict[str, object]] = {}
    captions: dict[str, list[str]] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            key, _, suffix = member.name.rpartition(".")
            if suffix == "jpg":
                images[key] = {
                    "tar": str(path),
                    "member": member.name,
                    "offset": member.offset_data,
                    "size": member.size,
                }
            else:
                file = tar.extractfile(member)
                assert file is not None
                captions[key] = [" ".join(file.read().decode().split())]
    entries = [(key, captions[key], location) for key, location in images.items()]
    order = list(range(num_samples))
    random.Random(0).shuffle(order)
    seconds, size = time.process_time() - begin, read_memory()["RssAnon"] - before
    assert len(entries) == len(order)
    return {"seconds_per_pair": seconds / num_samples, "bytes_per_pair": max(size, 0) / num_samples}


def former_masks(num_ranks: int, step: int) -> Tensor:
    """Return the masks of the last rank, sampled with those of the global batch as before."""
    generator = torch.Generator().manual_seed(step)
    uniform = torch.rand(num_ranks * BATCH_SIZE, 1 + NUM_TOKENS, generator=generator)
    return sample_mask(uniform)[-BATCH_SIZE:]


def measure_steps(num_ranks: int, num_pairs: int, repeats: int) -> dict[str, float]:
    """Return CPU milliseconds per step of the last rank, of masks and of the sampler, and of masks the former way.

    The repetitions of the sampler fit into one pass, if there are enough pairs.
    """
    seeds = StepSeeds()
    seeds.run_seed = 0
    sampler = StratifiedBatchSampler(
        sizes=(num_pairs // 2, num_pairs // 2),
        counts=lambda step: (BATCH_SIZE // 2, BATCH_SIZE // 2),
        num_steps=LATE_STEP,
        rank=num_ranks - 1,
        world_size=num_ranks,
    )
    begin = time.process_time()
    sampler.batch(0)  # shuffles both strata
    shuffle = 1000 * (time.process_time() - begin)

    def masks(step: int) -> None:
        seeds.start_step(step, num_ranks - 1)
        sample_mask(seeds.sample_rows(BATCH_SIZE, 2 + NUM_TOKENS)[:, 1:])

    def batch(step: int) -> None:
        sampler.batch(step)

    def former(step: int) -> None:
        former_masks(num_ranks, step)

    return {
        "masks_ms": cpu_ms(masks, repeats),
        "sampler_ms": cpu_ms(batch, max(1, min(repeats, num_pairs // (6 * BATCH_SIZE * num_ranks)))),
        "shuffle_ms": round(shuffle * min(1.0, num_ranks * BATCH_SIZE / num_pairs), 4),
        "former_masks_ms": cpu_ms(former, max(1, repeats // num_ranks), num_rounds=2),
    }


def cpu_ms(run: Callable[[int], None], repeats: int, num_rounds: int = 5) -> float:
    """Return the CPU milliseconds of a call, those of the fastest round."""
    rounds = []
    for number in range(num_rounds):
        begin = time.process_time()
        for step in range(number * repeats + 1, (number + 1) * repeats + 1):
            run(step)
        rounds.append((time.process_time() - begin) / repeats)
    return round(1000 * min(rounds), 4)


def measure_resume(num_pairs: int) -> dict[str, float | bool]:
    """Return the CPU milliseconds of the first batch of a run that resumes late, and whether it is the right one."""

    def make() -> StratifiedBatchSampler:
        return StratifiedBatchSampler([num_pairs], lambda step: (BATCH_SIZE,), LATE_STEP, rank=7, world_size=8)

    whole = make()
    whole.step = LATE_STEP
    state, expected = whole.state_dict(), whole.batch(LATE_STEP)
    resumed = make()
    begin = time.process_time()
    resumed.load_state_dict(state)
    is_equal = resumed.batch(LATE_STEP) == expected
    return {
        "pairs": num_pairs,
        "cpu_ms": round(1000 * (time.process_time() - begin), 2),
        "checkpoint_bytes": len(json.dumps(state)),
        "is_equal": is_equal,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10^4 and 10^6 pairs; under 50 seconds on two cores")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--pairs", type=int, nargs="+", help="default: 10^4 to 10^7")
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)  # a measurement of one process
    settings = parser.parse_args()
    torch.set_num_threads(1)
    if settings.start is not None:
        print(json.dumps(measure_start(settings.start)))
        return
    sizes = settings.pairs or ([10**4, 10**6] if settings.quick else [10**4, 10**5, 10**6, 10**7])
    repeats = 10 if settings.quick else 100
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SYNTH2_CACHE"] = str(folder / "cache")
        steps = {ranks: measure_steps(ranks, max(sizes), repeats) for ranks in settings.ranks}
        former = measure_former_start(folder, min(5_000 if settings.quick else 20_000, max(sizes)))
        starts = []
        for size in sizes:
            write_tars(folder / str(size), size)  # its pages are in memory, as those of an index for all ranks but one
            starts.append(start_process(folder / str(size)))
    resumes = [measure_resume(size) for size in sizes]
    few, many = steps[settings.ranks[0]], steps[settings.ranks[-1]]
    growth = (many["masks_ms"] + many["sampler_ms"]) / (few["masks_ms"] + few["sampler_ms"])
    largest = starts[-1]
    failures = [
        text
        for is_failure, text in (
            (growth > MAX_GROWTH, f"a step costs {growth:.2f} times as much with {settings.ranks[-1]} ranks"),
            (many["shuffle_ms"] > MAX_SHUFFLE_MS, f"shuffling takes {many['shuffle_ms']} ms a step"),
            (largest["cpu_seconds"] > MAX_SECONDS, f"a start takes {largest['cpu_seconds']} s"),
            (largest["private_mib"] > MAX_MIB, f"a start takes {largest['private_mib']} MiB"),
            (not all(resume["is_equal"] for resume in resumes), "a resumed run has other batches"),
        )
        if is_failure
    ]
    for text in failures:
        print(f"failed: {text}", file=sys.stderr)
    report(
        "scale",
        ratio=many["former_masks_ms"] / many["masks_ms"],
        step_growth=round(growth, 3),
        steps=steps,
        starts=starts,
        former_start_seconds=round(former["seconds_per_pair"] * sizes[-1], 3),
        former_start_mib=round(former["bytes_per_pair"] * sizes[-1] / MIB),
        resumes=resumes,
        failures=failures,
    )
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
