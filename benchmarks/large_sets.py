"""Caption sets larger than memory with Ray Data: report, selections and deduplication. Prints one JSON line.

The object store of a local cluster of two workers has the smallest size that Ray permits (75 MiB). Report, selection by
class and selection by cluster run on a set several times as large; deduplication on a smaller set whose shuffle is
several times as large, too. ``peak_mb`` is the increase of this process's peak resident memory. Sentence embeddings are
random numbers, so that the encoder is excluded.
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

from synth2_lightning.filters.duplicates import NearDuplicates
from synth2_lightning.io.parquet import ROWS_OF_A_GROUP
from synth2_lightning.reports.commands import report_on_sets, select_by_class, select_by_cluster
from synth2_lightning.reports.deduplication import deduplicate
from synth2_lightning.reports.ray import connect
from synth2_lightning.testing import TinyTextEncoder

_OBJECT_STORE = 75 * 2**20
_WORDS = [f"word{number}" for number in range(5000)]


def write_set(folder: Path, num: int, words: int) -> int:
    """Write random captions, a fifth of them near duplicates; return their bytes of text."""
    rng = random.Random(0)
    folder.mkdir()
    schema = pa.schema([("caption", pa.string()), ("class_name", pa.string())])
    num_bytes = 0
    with pq.ParquetWriter(folder / "captions.parquet", schema) as writer:
        for start in range(0, num, ROWS_OF_A_GROUP // 8):
            size = min(ROWS_OF_A_GROUP // 8, num - start)
            captions = [" ".join(rng.choices(_WORDS, k=words)) for _ in range(size)]
            for index in range(5, size, 5):
                captions[index] = f"{captions[index - 3].rpartition(' ')[0]} copy"
            names = rng.choices(_WORDS[:100], k=size)
            writer.write_table(pa.table([captions, names], schema=schema))
            num_bytes += sum(map(len, captions))
    return num_bytes


def measure(run: Callable[[], None]) -> dict[str, float]:
    """Return the seconds of a function and the increase of peak memory."""
    before, start = peak_mb(), time.perf_counter()
    run()
    return {"seconds": round(time.perf_counter() - start, 1), "peak_mb": round(peak_mb() - before, 1)}


def peak_mb() -> float:
    """Return the peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def spilled_mb() -> float:
    """Return the MiB that Ray has spilled to disk because the object store was full."""
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address
    from ray._private.worker import global_worker

    reply = get_memory_info_reply(get_state_from_address(global_worker.gcs_client.address))
    return float(reply.store_stats.spilled_bytes_total) / 2**20


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=1_000_000, help="captions of the set for report and selections")
    parser.add_argument("--num-deduplicated", type=int, default=50_000, help="captions of the set to deduplicate")
    parser.add_argument("--words", type=int, default=50, help="words per caption")
    args = parser.parse_args()
    quiet, near, encoder = Console(quiet=True), NearDuplicates(), TinyTextEncoder()
    result: dict[str, object] = {"object_store_mb": _OBJECT_STORE / 2**20}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large, small = str(folder / "large"), str(folder / "small")
        for path, num in ((large, args.num), (small, args.num_deduplicated)):
            num_bytes = write_set(Path(path), num, args.words)
            result[Path(path).name] = {"num_captions": num, "text_mb": round(num_bytes / 2**20, 1)}
        with connect("local", num_cpus=2, object_store_memory=_OBJECT_STORE) as engine:
            runs: dict[str, Callable[[], None]] = {
                "report": lambda: report_on_sets([large], folder / "page", encoder, console=quiet, engine=engine),
                "classes": lambda: select_by_class(
                    large, folder / "classes", args.num // 2, console=quiet, engine=engine
                ),
                "clusters": lambda: select_by_cluster(
                    large, folder / "clusters", args.num // 2, encoder, console=quiet, engine=engine
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
