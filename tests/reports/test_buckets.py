import random

import numpy as np
import pyarrow as pa
import pytest

from synth2_lightning.filters.duplicates import NearDuplicates
from synth2_lightning.reports.buckets import (
    BLOCKED,
    DROPPED,
    FREE,
    KEPT,
    UNDECIDED,
    assign_buckets,
    gather_buckets,
    judge_bucket,
    judge_buckets,
)
from synth2_lightning.reports.partitions import TablePartition

BASE = "a brown dog runs over the green grass beside a lake"


def test_captions_are_grouped_by_bucket_without_blank_ones() -> None:
    rows = TablePartition(pa.table({"caption": ["a fox", None, "an owl", " A fox! ", "  "]}), first_row=100)
    (spread,) = assign_buckets(rows, NearDuplicates(), num_shards=4)
    assert len(spread) == 3 * 18
    assert set(spread["row"].to_pylist()) == {100, 102, 103}
    assert set(spread["shard"].to_pylist()) <= set(range(4))
    gathered = gather_buckets(spread).to_pylist()
    assert gathered == [{"rows": [100, 103], "captions": ["a fox", "A fox!"]}] * 18


def test_buckets_with_one_caption_are_dropped() -> None:
    shard = pa.table({"bucket": [1, 2], "row": [0, 1], "caption": ["a", "b"]})
    assert len(gather_buckets(shard)) == 0
    assert len(gather_buckets(shard.slice(0, 0))) == 0


@pytest.mark.parametrize(
    ("statuses", "verdicts"),
    [
        ([UNDECIDED, UNDECIDED, UNDECIDED], [FREE, BLOCKED, FREE]),
        ([KEPT, UNDECIDED, UNDECIDED], [KEPT, DROPPED, FREE]),
        ([DROPPED, UNDECIDED, KEPT], [DROPPED, FREE, KEPT]),
    ],
)
def test_only_kept_and_undecided_captions_affect_later_ones(statuses: list[int], verdicts: list[int]) -> None:
    captions = [BASE, BASE.replace("lake", "pond"), "two cats sleep on a warm roof"]
    assert judge_bucket(captions, statuses, NearDuplicates()) == verdicts


def test_rounds_equal_one_process_for_chains_of_near_duplicates() -> None:
    draw = random.Random(3)
    words = [f"word{number}" for number in range(20)]
    chain = [" ".join([f"new{number}" for number in range(changed)] + words[changed:]) for changed in range(16)]
    captions = [*chain, *(" ".join(draw.choices(("a", "b", "c"), k=5)) for _ in range(300))]
    near = NearDuplicates(threshold=0.6)
    rows = TablePartition(pa.table({"caption": captions}))
    buckets = gather_buckets(pa.concat_tables(assign_buckets(rows, near, num_shards=1)))
    kept = dropped = np.empty(0, np.int64)
    num_rounds = 0
    while True:
        found = judge_buckets(buckets, near, kept, dropped).to_pandas().groupby("row")["verdict"].max()
        kept = np.union1d(kept, found[found == FREE].index)
        dropped = np.union1d(dropped, found[found == DROPPED].index)
        num_rounds += 1
        if not (found == BLOCKED).any():
            break
    expected = {int(row) for row in near.find_rejected(captions)}
    assert set(dropped.tolist()) == expected
    assert num_rounds > 2
