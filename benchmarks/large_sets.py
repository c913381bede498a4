"""Does Ray Data take a caption set through that its memory does not hold? Prints one JSON line.

The object store of a local cluster of two workers is made as small as Ray allows (75 MiB). A set of several times that
is selected from, evenly over classes and over clusters, and reported on; near duplicates are removed from a smaller
one, whose shuffle is several times that, too. ``peak_mb`` is how far a run raises the resident memory of this process
above the most that it had before. Sentences are embedded by a table of noise: what is measured is all but the encoder.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from synth2_lightning.distributed.engine import connect
from synth2_lightning.filters.duplicates import NearDuplicates
from synth2_lightning.parquet import ROWS_OF_A_GROUP
from synth2_lightning.reports.commands import deduplicate, report_on_sets, select_by_class, select_by_cluster
from synth2_lightning.testing import TinyTextEncoder

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
    quiet, near, encoder = Console(quiet=True), NearDuplicates(), TinyTextEncoder()
    result: dict[str, object] = {"object_store_mb": _OBJECT_STORE / 2**20}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large, small = str(folder / "large"), str(folder / "small")
        for place, num in ((large, given.num), (small, given.num_deduplicated)):
            num_bytes = write_set(Path(place), num, given.words)
            result[Path(place).name] = {"num_captions": num, "text_mb": round(num_bytes / 2**20, 1)}
        with connect("local", num_cpus=2, object_store_memory=_OBJECT_STORE) as engine:
            runs: dict[str, Callable[[], None]] = {
                "report": lambda: report_on_sets([large], folder / "page", encoder, console=quiet, engine=engine),
                "classes": lambda: select_by_class(
                    large, folder / "classes", given.num // 2, console=quiet, engine=engine
                ),
                "clusters": lambda: select_by_cluster(
                    large, folder / "clusters", given.num // 2, encoder, console=quiet, engine=engine
                ),
                "deduplicate": lambda: deduplicate(small, folder / "apart", near, console=quiet, engine=engine),
            }
            for kind, run in runs.items():
                spilled = spilled_mb()
                result[kind] = {**measure(run), "spilled_mb": round(spilled_mb() - spilled, 1)}
        result["kept"] = pq.read_metadata(folder / "apart" / "captions.parquet").num_rows
    print(json.dumps(result))


if __name__ == "__main__":
    main()
