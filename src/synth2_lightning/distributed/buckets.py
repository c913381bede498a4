"""Near duplicates over a set that no machine holds.

The filter keeps a caption if no near one *that was kept* stands before it, so what is kept depends on all that comes
before. Two facts make it a matter of buckets, in which near captions meet:

* all that a caption is compared with is in its buckets; one shuffle brings them together, and buckets of one are left
  behind. It moves each caption as often as there are buckets for it (18 by default), with 16 bytes beside it.
* a caption stays as soon as no undecided or kept one before it is near, in any of its buckets, and goes as soon as a
  kept one is. The first undecided caption of the set can always be decided; so rounds over the buckets end, with what
  one process keeps, to the row. They are as many as the longest chain of decisions that wait for each other.

No pairs are listed: a thousand copies of a caption cost a thousand comparisons a round, not half a million. Between
rounds the process that asks holds 9 bytes for each caption that shares a bucket, times its shared buckets. A worker
holds a bucket: all captions of a template that fills one sentence in a million ways.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synth2_lightning.filters.duplicates import NearDuplicates, Runs
from synth2_lightning.metrics.ngrams import Ints
from synth2_lightning.reports.partitions import Partition, list_captions

UNDECIDED, FREE, BLOCKED, KEPT, DROPPED = range(5)
"""What is known of a caption; among the verdicts of its buckets, the largest holds."""

_ROWS_OF_A_SHARD = 500_000  # some 100 MB of captions, sorted by one worker at a time
_NO_ROWS = np.empty(0, np.int64)

Verdicts = npt.NDArray[np.int8]


def find_near_duplicates(near: NearDuplicates, partitions: Any, num_rows: int, num_workers: int) -> Ints:
    """Give the rows that say nearly the same as an earlier one that stays, ascending.

    Args:
        near: Says what is near.
        partitions: Ray data set of pickled partitions, each a row ``item``.
        num_rows: Rows of all partitions.
        num_workers: Of the cluster.
    """
    num_buckets = len(next(near.find_buckets([near.list_runs("")])))
    num_shards = max(2 * num_workers, num_rows * num_buckets // _ROWS_OF_A_SHARD)
    buckets = (
        partitions.map_batches(partial(_spread, near=near, num_shards=num_shards), batch_size=1, batch_format="pyarrow")
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


def spread_captions(partition: Partition, near: NearDuplicates, num_shards: int) -> Iterator[pa.Table]:
    """Give a row for every bucket of every caption that is not blank.

    Example:
        >>> from synth2_lightning.reports.partitions import TablePartition
        >>> rows = TablePartition(pa.table({"caption": ["a fox", ""]}))
        >>> next(spread_captions(rows, NearDuplicates(), num_shards=2)).column_names
        ['shard', 'bucket', 'row', 'caption']
    """
    for first, table in partition.read(["caption"]):
        captions = list_captions(table)
        places = [place for place, caption in enumerate(captions) if caption]
        found = list(near.find_buckets(near.list_runs(captions[place]) for place in places))
        sizes = [len(buckets) for buckets in found]
        buckets = np.asarray([bucket for each in found for bucket in each], np.int64)
        repeated = np.repeat(np.asarray(places, np.int64), sizes)
        texts = pa.array(captions, pa.large_string()).take(pa.array(repeated))
        yield pa.table({"shard": buckets % num_shards, "bucket": buckets, "row": repeated + first, "caption": texts})


def gather_buckets(shard: pa.Table) -> pa.Table:
    """Put the captions of each bucket of a shard together, in their order; buckets of one are left out.

    Returns:
        A row per bucket, with the lists ``rows`` and ``captions``.

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
    """Say of every undecided caption of every bucket what the bucket knows of it.

    Args:
        buckets: As :func:`gather_buckets` gives them.
        near: Says what is near.
        kept: Rows that stay for sure.
        dropped: Rows that go for sure.

    Returns:
        The columns ``row`` and ``verdict``.

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
    """Judge the captions of one bucket.

    Args:
        captions: In the order of the set.
        statuses: ``UNDECIDED``, ``KEPT`` or ``DROPPED``, of each.
        near: Says what is near.

    Returns:
        ``FREE`` of an undecided caption before which no kept or undecided one is near, ``BLOCKED`` where an undecided
        one is, ``DROPPED`` where a kept one is; of the others their status.

    Example:
        >>> judge_bucket(["a fox", "A fox.", "an owl"], [UNDECIDED] * 3, NearDuplicates()) == [FREE, BLOCKED, FREE]
        True
    """
    kept: list[Runs] = []
    undecided: list[Runs] = []
    verdicts = []
    for caption, status in zip(captions, statuses, strict=True):
        if status == DROPPED:
            verdicts.append(status)
            continue
        runs = near.list_runs(caption)
        if status == KEPT:
            kept.append(runs)
        elif any(near.are_near(runs, other) for other in kept):
            status = DROPPED
        else:
            status = BLOCKED if any(near.are_near(runs, other) for other in undecided) else FREE
            undecided.append(runs)
        verdicts.append(status)
    return verdicts


def _spread(batch: pa.Table, near: NearDuplicates, num_shards: int) -> Iterator[pa.Table]:
    from ray import cloudpickle

    for item in batch["item"].to_pylist():
        yield from spread_captions(cloudpickle.loads(item), near, num_shards)


def _collect(verdicts: Any) -> tuple[Ints, Verdicts]:
    """The verdict of every row: the largest that any of its buckets gave."""
    rows, given = [_NO_ROWS], [np.empty(0, np.int8)]
    for batch in verdicts.iter_batches(batch_size=None, batch_format="pyarrow"):
        rows.append(batch["row"].to_numpy())
        given.append(batch["verdict"].to_numpy())
    all_rows, all_given = np.concatenate(rows), np.concatenate(given)
    order = np.lexsort((all_given, all_rows))
    distinct, firsts = np.unique(all_rows[order], return_index=True)
    lasts = np.append(firsts[1:], len(order)) - 1 if len(order) else firsts
    return distinct, all_given[order][lasts]
