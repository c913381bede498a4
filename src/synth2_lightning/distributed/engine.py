"""Go through caption sets with Ray Data, on this machine's cores or on a cluster.

Rows stay in their Parquet files: what travels to a worker is where its partition lies, what comes back is small, or the
rows that were asked for. Nothing is decided in a worker that depends on another one's partition:

* *samples and balanced selections* take the rows of smallest priority (``reports/sampling.py``), which a row has of
  itself; the process that asks holds 4 bytes for each row of the set, its group, and about 40 for each selected one;
* *clusters* are fitted by the process that asks to a sample, the same one for any number of workers, and workers only
  look for the nearest centre;
* *near duplicates* are the one thing that needs a shuffle (``distributed/buckets.py``).

So every result is that of one process. (Embeddings may differ in their last bits between machines; a caption midway
between two clusters may then be in the other one.)
"""

import logging
import os
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from functools import partial
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

from synth2_lightning.distributed.buckets import find_near_duplicates
from synth2_lightning.filters.duplicates import NearDuplicates
from synth2_lightning.metrics.ngrams import Ints
from synth2_lightning.reports.engine import CaptionEngine, Item, Result
from synth2_lightning.reports.partitions import Partition
from synth2_lightning.signals import keep_sigterm

_MOST_TASKS = 1000  # more only cost their bookkeeping


class RayEngine(CaptionEngine):
    """Has the workers of a Ray cluster go through the partitions; Ray is connected already.

    Example:
        >>> with connect("local") as engine:  # doctest: +SKIP
        ...     list(engine.map(len, ["a fox", "two dogs"]))
        [5, 8]
    """

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Deal the items out to workers; the function travels once to each machine, with all that it has loaded.

        Raises:
            OSError: If Ray gives up.
            Exception: What the function raises.
        """
        from ray import cloudpickle

        if not items:
            return
        results = pack(items).map_batches(partial(_apply, function=function), batch_size=1, batch_format="pyarrow")
        with translate_errors():
            for row in results.iter_rows():
                result, error = cloudpickle.loads(row["result"])
                if error is not None:
                    raise error
                yield result

    def find_near_duplicates(self, near: NearDuplicates, partitions: Sequence[Partition]) -> Ints:
        """Shuffle captions into the buckets in which near ones meet, and judge bucket by bucket."""
        with translate_errors():
            num_rows = sum(partition.num_rows for partition in partitions)
            return find_near_duplicates(near, pack(partitions), num_rows, count_workers())


def _apply(batch: Any, function: Callable[[Any], Any]) -> dict[str, list[bytes]]:
    from ray import cloudpickle

    outcomes: list[tuple[Any, Exception | None]] = []
    for item in batch["item"].to_pylist():
        try:
            outcomes.append((function(cloudpickle.loads(item)), None))
        except Exception as error:  # raised anew by who asks; tried again, it would come again
            error.add_note(traceback.format_exc())
            outcomes.append((None, error))
    return {"result": [cloudpickle.dumps(outcome) for outcome in outcomes]}


@contextmanager
def connect(address: str, **settings: Any) -> Iterator[RayEngine]:
    """Start Ray, or connect to a cluster, for as long as the context lasts.

    Ray's reports of usage and its dashboard are off. With ``local``, Ray listens on 127.0.0.1 alone, unless
    ``RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=1`` says otherwise, or Ray was imported before; a cluster that ``ray start``
    made listens where it was told to.

    Args:
        address: ``local`` for the cores of this machine, ``auto`` for the cluster that this machine is part of, or
            ``HOST:PORT``.
        settings: More of what ``ray.init`` takes, such as ``num_cpus``.

    Raises:
        OSError: If Ray is not installed, is connected already, does not start, or is not at that address.
    """
    if find_spec("ray") is None:
        raise OSError(
            "Sets that memory does not hold are gone through by Ray Data, which is not installed; expected the extra "
            '`ray`. Install it with `pip install "synth2-lightning[ray]"`.'
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported
    if address == "local":  # by name for other systems only, but it is what makes Ray use the loopback interface
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():
        raise OSError("Ray is connected already, by this process; expected a RayEngine() with that, or ray.shutdown().")
    if address == "local":
        settings = {"include_dashboard": False, **settings}
    # Ray has its workers import from the folder that is the current one now: one without anybody's data, nor modules.
    with keep_sigterm(), TemporaryDirectory(prefix="synth2-ray-") as empty:
        try:
            with chdir(empty):
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **settings)
        except Exception as error:  # Ray raises bare ones
            ray.shutdown()  # what did start
            raise OSError(
                f"There is no Ray at {address!r} ({error}). Expected 'local' for this machine's cores, 'auto', or the "
                "HOST:PORT that `ray start --head` prints, with the same versions of Python, Ray and synth2-lightning."
            ) from error
        try:
            _settle()
            yield RayEngine()
        finally:
            ray.shutdown()


def _settle() -> None:
    """Have Ray Data keep the order of partitions, and keep quiet."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False


def count_workers() -> int:
    """Number of cores of the cluster."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def pack(items: Sequence[Any]) -> Any:
    """Make a Ray data set of items, each a row ``item``."""
    import ray.data
    from ray import cloudpickle

    rows = [{"item": cloudpickle.dumps(item)} for item in items]
    return ray.data.from_items(rows, override_num_blocks=min(len(rows), _MOST_TASKS))


@contextmanager
def translate_errors() -> Iterator[None]:
    """Say in one sentence what Ray says in pages.

    Raises:
        OSError: If Ray raises anything.
    """
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        causes = re.findall(r"^[\w.]*(?:Error|Exception): .*", str(error), re.MULTILINE)  # among pages of its own
        cause = causes[-1] if causes else type(error).__name__
        raise OSError(
            f"Ray gave up: {cause} Expected workers that stay, with memory and disk left; "
            "`ray status` and the logs of Ray, in /tmp/ray/session_latest/logs, tell more."
        ) from error
