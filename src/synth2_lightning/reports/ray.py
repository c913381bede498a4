"""Processing of caption sets by Ray Data, on local cores or on a cluster.

Workers receive the locations of partitions and read the rows from Parquet files; they return small results or the
requested rows. Workers are independent of each other's partitions:

* *Samples and balanced selections* consist of the rows with the smallest priorities (``reports/sampling.py``), which
  depend on the row number alone. The driver holds the group of each row (4 bytes) and about 40 bytes per selected row.
* *Clusters* are fitted by the driver to a sample that is independent of the number of workers; workers assign captions
  to the nearest center.
* *Near duplicates* need a shuffle (``reports/buckets.py``).

All results equal those of one process, except that the last bits of embeddings may differ between machines, which can
change the cluster of a caption at equal distance from two centers.
"""

import logging
import os
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

from synth2_lightning.filters.duplicates import NearDuplicates
from synth2_lightning.io.extras import require_extra
from synth2_lightning.io.signals import keep_sigterm
from synth2_lightning.metrics.ngrams import Ints
from synth2_lightning.reports.buckets import find_near_duplicates
from synth2_lightning.reports.engine import CaptionEngine, Item, Result
from synth2_lightning.reports.partitions import Partition

_MAX_TASKS = 1000  # more only add scheduling overhead


class RayEngine(CaptionEngine):
    """Processes partitions on the workers of a connected Ray cluster.

    Example:
        >>> with connect("local") as engine:  # doctest: +SKIP
        ...     list(engine.map(len, ["a fox", "two dogs"]))
        [5, 8]
    """

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Distribute the items over workers. The function is sent to each machine once, including its loaded weights.

        Raises:
            OSError: If Ray fails.
            Exception: Any exception of the function.
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
        """Shuffle captions into LSH buckets, and compare those of each bucket."""
        with translate_errors():
            num_rows = sum(partition.num_rows for partition in partitions)
            return find_near_duplicates(near, pack(partitions), num_rows, count_workers())


def _apply(batch: Any, function: Callable[[Any], Any]) -> dict[str, list[bytes]]:
    from ray import cloudpickle

    outcomes: list[tuple[Any, Exception | None]] = []
    for item in batch["item"].to_pylist():
        try:
            outcomes.append((function(cloudpickle.loads(item)), None))
        except Exception as error:  # reraised by the driver; Ray would retry the task
            error.add_note(traceback.format_exc())
            outcomes.append((None, error))
    return {"result": [cloudpickle.dumps(outcome) for outcome in outcomes]}


@contextmanager
def connect(address: str, **settings: Any) -> Iterator[RayEngine]:
    """Start Ray, or connect to a cluster, and shut it down when the context exits.

    Usage reports and the dashboard are disabled. With ``local``, Ray listens only on 127.0.0.1, unless
    ``RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=1`` is set or Ray was imported before; clusters of ``ray start`` have their own
    settings.

    Args:
        address: ``local`` for the cores of this machine, ``auto`` for the cluster that this machine is part of, or
            ``HOST:PORT``.
        settings: Additional arguments of ``ray.init``, such as ``num_cpus``.

    Raises:
        OSError: If Ray is not installed, is already connected, does not start, or is not at the address.
    """
    require_extra("ray", "ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported
    if address == "local":  # despite its name, it makes Ray use the loopback interface on Linux as well
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():
        raise OSError(
            "Ray is already connected in this process; expected no connection. Use RayEngine(), or call ray.shutdown()."
        )
    if address == "local":
        settings = {"include_dashboard": False, **settings}
    # Workers import from the current folder at ray.init; an empty one has no modules of the user.
    with keep_sigterm(), TemporaryDirectory(prefix="synth2-ray-") as empty:
        try:
            with chdir(empty):
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **settings)
        except Exception as error:  # Ray raises Exception itself
            ray.shutdown()  # processes that did start
            raise OSError(
                f"There is no Ray cluster at {address!r} ({error}). Expected 'local' for this machine's cores, 'auto', "
                "or the HOST:PORT of `ray start --head`, with the same versions of Python, Ray and synth2-lightning."
            ) from error
        try:
            _configure_ray_data()
            yield RayEngine()
        finally:
            ray.shutdown()


def _configure_ray_data() -> None:
    """Preserve the order of partitions, and disable logs and progress bars of Ray Data."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False


def count_workers() -> int:
    """Return the number of CPU cores of the cluster."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def pack(items: Sequence[Any]) -> Any:
    """Return a Ray dataset of pickled items in a column ``item``."""
    import ray.data
    from ray import cloudpickle

    rows = [{"item": cloudpickle.dumps(item)} for item in items]
    return ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_TASKS))


@contextmanager
def translate_errors() -> Iterator[None]:
    """Replace long error messages of Ray with their cause.

    Raises:
        OSError: If Ray raises an error.
    """
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        causes = re.findall(r"^[\w.]*(?:Error|Exception): .*", str(error), re.MULTILINE)
        cause = causes[-1] if causes else type(error).__name__
        raise OSError(
            f"Ray failed: {cause} Expected running workers with free memory and disk space; see `ray status` and the "
            "logs in /tmp/ray/session_latest/logs."
        ) from error
