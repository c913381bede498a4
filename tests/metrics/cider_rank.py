"""One rank of two, for ``test_cider.py``: ``cider_rank.py RANK STORE CORPUS`` writes the scores it computes as JSON."""

import json
import sys

import torch.distributed as dist

from synth2_lightning.metrics.cider import Cider

if __name__ == "__main__":
    rank, store, corpus = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    scores = []
    for keys_of_ranks in corpus["splits"]:
        metric = Cider()
        metric.update([], [], [])
        for key in keys_of_ranks[rank]:
            metric.update([key], [corpus["hypotheses"][key]], [corpus["references"][key]])
        scores.append(metric.compute().item())
        assert len(metric.rows) == len(keys_of_ranks[rank])  # what came from the other rank is gone again
    sys.stdout.write(json.dumps(scores))
    dist.destroy_process_group()
