"""One rank of some, for ``test_corpus.py``: ``corpus_rank.py RANK SIZE STORE CORPUS`` writes its scores as JSON."""

import json
import sys

import torch.distributed as dist

from synth2_lightning.metrics.bleu import Bleu
from synth2_lightning.metrics.cider import Cider
from synth2_lightning.metrics.rouge import Rouge

if __name__ == "__main__":
    rank, size, store, corpus = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    scores = []
    for keys_of_ranks in corpus["splits"]:
        for metric in (Cider(), Bleu(), Rouge()):
            metric.update([], [], [])
            for key in keys_of_ranks[rank]:
                metric.update([key], [corpus["hypotheses"][key]], [corpus["references"][key]])
            computed = metric.compute()
            values = computed.values() if isinstance(computed, dict) else [computed]
            scores.append([value.item() for value in values])
            assert len(metric.rows) == len(keys_of_ranks[rank])  # what came from the other ranks is gone again
    sys.stdout.write(json.dumps(scores))
    dist.destroy_process_group()
