"""Does Ray Data take a caption set through that its memory does not hold? Prints one JSON line.

The object store of a local cluster of two workers is made as small as Ray allows (75 MiB). A set of several times that
goes through ``select_by_class``; near duplicates are removed from the first rows of it, whose shuffle is several times
that, too. ``peak_mb`` is the resident memory of this process, beyond what it has with Ray connected.
"""

import argparse
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from synth2_lightning.distributed.engine import RayEngine, settle
from synth2_lightning.filters.duplicates import NearDuplicates
from synth2_lightning.parquet import ROWS_OF_A_GROUP
from synth2_lightning.reports.commands import deduplicate, select_by_class

_OBJECT_STORE = 75 * 2**20
_WORDS = [f"word{number}" for number in range(5000)]


def write_set(folder: Path, num: int, words: int) -> int:
    """Write captions of chance, a fifth of them near copies; return their bytes of text."""
    draw = random.Random(0)
    folder.mkdir()
    schema = pa.schema([("caption", pa.string()), ("class_name", pa.string())])
    num_bytes = 0
    with pq.ParquetWriter(folder / "captions.parquet", schema) as writer:
        for start in range(0, num, ROWS_OF_A_GROUP // 8):
            size = min(ROWS_OF_A_GROUP // 8, num - start)
            captions = [" ".join(draw.choices(_WORDS, k=words)) for _ in range(size)]
            for place in range(5, size, 5):
                captions[place] = f"{captions[place - 3].rpartition(' ')[0]} copy"
            names = draw.choices(_WORDS[:100], k=size)
            writer.write_table(pa.table([captions, names], schema=schema))
            num_bytes += sum(map(len, captions))
    return num_bytes


def measure(run: Callable[[], None]) -> dict[str, float]:
    """Time a function, and see what it takes beyond what is taken already."""
    before, start = peak_mb(), time.perf_counter()
    run()
    return {"seconds": round(time.perf_counter() - start, 1), "peak_mb": round(peak_mb() - before, 1)}


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def spilled_mb() -> float:
    """What Ray has written to disk because the object store was full."""
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address
    from ray._private.worker import global_worker

    reply = get_memory_info_reply(get_state_from_address(global_worker.gcs_client.address))
    return float(reply.store_stats.spilled_bytes_total) / 2**20


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=1_000_000, help="captions of the set that is selected from")
    parser.add_argument("--num-deduplicated", type=int, default=50_000, help="captions that near copies are sought in")
    parser.add_argument("--words", type=int, default=50, help="of a caption")
    given = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    quiet, near, engine = Console(quiet=True), NearDuplicates(), RayEngine()
    result: dict[str, object] = {"object_store_mb": _OBJECT_STORE / 2**20}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, num in (("select", given.num), ("deduplicate", given.num_deduplicated)):
            num_bytes = write_set(folder / kind, num, given.words)
            result[kind] = {"num_captions": num, "text_mb": round(num_bytes / 2**20, 1)}
        ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=_OBJECT_STORE, log_to_driver=False)
        settle()
        runs: dict[str, Callable[[], None]] = {
            "select": lambda: select_by_class(
                str(folder / "select"), folder / "even", given.num // 2, console=quiet, engine=engine
            ),
            "deduplicate": lambda: deduplicate(
                str(folder / "deduplicate"), folder / "apart", near, console=quiet, engine=engine
            ),
        }
        for kind, run in runs.items():
            spilled = spilled_mb()
            result[kind] |= {**measure(run), "spilled_mb": round(spilled_mb() - spilled, 1)}  # type: ignore[operator]
        result["kept"] = pq.read_metadata(folder / "apart" / "captions.parquet").num_rows
        ray.shutdown()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
