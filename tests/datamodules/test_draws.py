from collections.abc import Callable

import numpy as np
import pytest

from synth2_lightning.datamodules.draws import copy_key, original_key, rank_draws
from synth2_lightning.shards.reader import ShardReader

MakeShards = Callable[..., str]


@pytest.mark.parametrize("key", ["7", "a~b", "~3", "coco/7-2"])
def test_the_key_of_a_copy_leads_to_the_original(key: str) -> None:
    assert original_key(key) == key
    assert [original_key(copy_key(key, copy)) for copy in (0, 1, 12)] == [key] * 3


def test_scores_are_ranked_among_the_images_of_a_caption(make_shards: MakeShards) -> None:
    keys = ("a", "b~1", "a~1", "b", "a~12", "c", "c")
    captions = (("x", "y"), ("z",), ("x", "y"), ("z",), ("x", "y"), ("x",), ("x",))
    scores = ((1.0, 5.0), (2.0,), (3.0, 4.0), (2.0,), (2.0, 6.0), (9.0,), (8.0,))
    sources = ["one"] * 6 + ["another"]
    reader = ShardReader(make_shards(7, scores, keys=keys, captions=captions, sources=sources))
    reader.load()
    ranks = rank_draws(reader, reader.read_scores())
    # Of the pairs a/x, a/y, b~1/z, a~1/x, a~1/y, b/z, a~12/x, a~12/y, c/x, c/x; b and b~1 have equal scores.
    assert ranks.tolist() == [2, 1, 1, 0, 2, 0, 1, 0, 0, 0]


def test_ranks_do_not_depend_on_the_order_of_rows(make_shards: MakeShards) -> None:
    keys = tuple(copy_key(f"k{number % 5}", number // 5) for number in range(20))
    values = np.random.default_rng(0).integers(0, 3, 20).astype(np.float32)
    found = []
    for order in (np.arange(20), np.random.default_rng(1).permutation(20)):
        scores = tuple((float(values[row]),) for row in order)
        reader = ShardReader(make_shards(20, scores, keys=tuple(keys[row] for row in order)))
        reader.load()
        ranks = rank_draws(reader, reader.read_scores())
        found.append(dict(zip([keys[row] for row in order], ranks.tolist(), strict=True)))
    assert found[0] == found[1]
    assert sorted(found[0].values()) == sorted([0, 1, 2, 3] * 5)
