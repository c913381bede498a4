"""Distributed removal of near duplicates by LSH buckets.

The filter keeps a caption if no earlier *kept* caption is near it, so each decision depends on all earlier ones. It is
computed per bucket:

* A caption is compared only with those in its buckets. One shuffle groups captions by bucket and drops buckets with a
  single member. It moves each caption once per bucket (18 by default), with 16 additional bytes.
* A caption is kept if no earlier undecided or kept caption in any of its buckets is near it, and dropped if a kept one
  is. The first undecided caption can always be decided, so rounds over the buckets terminate, with the exact result
  of one process. The number of rounds is the length of the longest chain of dependent decisions.

Pairs are not enumerated: a thousand copies of a caption take a thousand comparisons per round, not half a million.
Between rounds, the driver holds 9 bytes per caption and shared bucket. A worker holds one bucket, which can be large:
all captions from one template share buckets.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synth2_lightning.filters.duplicates import NearDuplicates, Ngrams
from synth2_lightning.metrics.ngrams import Ints
from synth2_lightning.reports.partitions import Partition, list_captions

UNDECIDED, FREE, BLOCKED, KEPT, DROPPED = range(5)
"""Status of a caption. Its status over several buckets is the maximum."""

_ROWS_PER_SHARD = 500_000  # about 100 MB of captions, sorted by one worker
_NO_ROWS = np.empty(0, np.int64)


def find_near_duplicates(near: NearDuplicates, partitions: Any, num_rows: int, num_workers: int) -> Ints:
    """Return the sorted row numbers of captions that are near duplicates of an earlier kept one.

    Args:
        near: Near-duplicate criterion.
        partitions: Ray dataset of pickled partitions in a column ``item``.
        num_rows: Number of rows in all partitions.
        num_workers: Number of CPU cores of the cluster.
    """
    num_buckets = len(next(near.find_buckets([near.list_ngrams("")])))
    num_shards = max(2 * num_workers, num_rows * num_buckets // _ROWS_PER_SHARD)
    buckets = (
        partitions.map_batches(
            partial(_assign_buckets, near=near, num_shards=num_shards), batch_size=1, batch_format="pyarrow"
        )
        .groupby("shard", num_partitions=num_shards)
        .map_groups(gather_buckets, batch_format="pyarrow")
        .materialize()
    )
    kept, dropped = _NO_ROWS, _NO_ROWS
    while True:
        judge = partial(judge_buckets, near=near, kept=kept, dropped=dropped)
        rows, verdicts = _collect(buckets.map_batches(judge, batch_size=None, batch_format="pyarrow"))
        kept = np.union1d(kept, rows[verdicts == FREE])
        dropped = np.union1d(dropped, rows[verdicts == DROPPED])
        if not (verdicts == BLOCKED).any():
            return dropped


def assign_buckets(partition: Partition, near: NearDuplicates, num_shards: int) -> Iterator[pa.Table]:
    """Yield one row per bucket of each caption that is not blank.

    Example:
        >>> from synth2_lightning.reports.partitions import TablePartition
        >>> rows = TablePartition(pa.table({"caption": ["a fox", ""]}))
        >>> next(assign_buckets(rows, NearDuplicates(), num_shards=2)).column_names
        ['shard', 'bucket', 'row', 'caption']
    """
    for first, table in partition.read(["caption"]):
        captions = list_captions(table)
        offsets = [offset for offset, caption in enumerate(captions) if caption]
        found = list(near.find_buckets(near.list_ngrams(captions[offset]) for offset in offsets))
        sizes = [len(buckets) for buckets in found]
        buckets = np.asarray([bucket for each in found for bucket in each], np.int64)
        repeated = np.repeat(np.asarray(offsets, np.int64), sizes)
        texts = pa.array(captions, pa.large_string()).take(pa.array(repeated))
        yield pa.table({"shard": buckets % num_shards, "bucket": buckets, "row": repeated + first, "caption": texts})


def gather_buckets(shard: pa.Table) -> pa.Table:
    """Group the captions of a shard by bucket, sorted by row; buckets with a single caption are dropped.

    Returns:
        One row per bucket, with the lists ``rows`` and ``captions``.

    Example:
        >>> shard = pa.table({"bucket": [7, 5, 7], "row": [9, 3, 2], "caption": ["a fox", "an owl", "A fox."]})
        >>> gather_buckets(shard).to_pylist()
        [{'rows': [2, 9], 'captions': ['A fox.', 'a fox']}]
    """
    buckets, rows = (shard[name].to_numpy() for name in ("bucket", "row"))
    order = np.lexsort((rows, buckets))
    _, members, sizes = np.unique(buckets[order], return_inverse=True, return_counts=True)
    order = order[sizes[members] > 1]
    offsets = pa.array(np.append(0, np.cumsum(sizes[sizes > 1])), pa.int64())
    captions = shard["caption"].combine_chunks().cast(pa.large_string()).take(pa.array(order, pa.int64()))
    lists = [pa.LargeListArray.from_arrays(offsets, values) for values in (pa.array(rows[order], pa.int64()), captions)]
    return pa.table(lists, names=["rows", "captions"])


def judge_buckets(buckets: pa.Table, near: NearDuplicates, kept: Ints, dropped: Ints) -> pa.Table:
    """Return the status of each undecided caption in each bucket.

    Args:
        buckets: Output of :func:`gather_buckets`.
        near: Near-duplicate criterion.
        kept: Rows that are decided as kept.
        dropped: Rows that are decided as dropped.

    Example:
        >>> buckets = pa.table({"rows": [[2, 9]], "captions": [["A fox.", "a fox"]]})
        >>> judge_buckets(buckets, NearDuplicates(), kept=np.array([2]), dropped=np.array([])).to_pylist()
        [{'row': 9, 'verdict': 4}]
    """
    rows = buckets["rows"].combine_chunks().flatten().to_numpy()
    sizes = pc.list_value_length(buckets["rows"]).to_numpy()
    statuses = np.where(np.isin(rows, kept), KEPT, np.where(np.isin(rows, dropped), DROPPED, UNDECIDED))
    is_open = statuses == UNDECIDED
    verdicts = statuses.astype(np.int8)
    ends = np.cumsum(sizes)
    for captions, start, end in zip(buckets["captions"], ends - sizes, ends, strict=True):
        if is_open[start:end].any():
            verdicts[start:end] = judge_bucket(captions.as_py(), statuses[start:end].tolist(), near)
    return pa.table({"row": rows[is_open], "verdict": verdicts[is_open]})


def judge_bucket(captions: Sequence[str], statuses: Sequence[int], near: NearDuplicates) -> list[int]:
    """Return the statuses of the captions of one bucket.

    Args:
        captions: Captions in the order of the set.
        statuses: ``UNDECIDED``, ``KEPT`` or ``DROPPED``, of each caption.
        near: Near-duplicate criterion.

    Returns:
        For an undecided caption, ``DROPPED`` if an earlier kept caption is near, else ``BLOCKED`` if an earlier
        undecided one is near, else ``FREE``. Other statuses are unchanged.

    Example:
        >>> judge_bucket(["a fox", "A fox.", "an owl"], [UNDECIDED] * 3, NearDuplicates()) == [FREE, BLOCKED, FREE]
        True
    """
    kept: list[Ngrams] = []
    undecided: list[Ngrams] = []
    verdicts = []
    for caption, status in zip(captions, statuses, strict=True):
        if status == DROPPED:
            verdicts.append(status)
            continue
        runs = near.list_ngrams(caption)
        if status == KEPT:
            kept.append(runs)
        elif any(near.are_near(runs, other) for other in kept):
            status = DROPPED
        else:
            status = BLOCKED if any(near.are_near(runs, other) for other in undecided) else FREE
            undecided.append(runs)
        verdicts.append(status)
    return verdicts


def _assign_buckets(batch: pa.Table, near: NearDuplicates, num_shards: int) -> Iterator[pa.Table]:
    from ray import cloudpickle

    for item in batch["item"].to_pylist():
        yield from assign_buckets(cloudpickle.loads(item), near, num_shards)


def _collect(verdicts: Any) -> tuple[Ints, npt.NDArray[np.int8]]:
    """Return the distinct rows, and the maximum status of each over its buckets."""
    none = pa.table({"row": _NO_ROWS, "verdict": np.empty(0, np.int8)})
    batches = verdicts.iter_batches(batch_size=None, batch_format="pyarrow")
    table = pa.concat_tables([none, *batches]).group_by("row").aggregate([("verdict", "max")])
    return table["row"].to_numpy(), table["verdict_max"].to_numpy()
