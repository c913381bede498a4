"""Single rank for ``test_corpus.py``: ``corpus_rank.py RANK SIZE STORE CORPUS`` writes its scores as JSON.

METEOR and SPICE of pycocoevalcap are replaced with fakes that score by common words.
"""

import json
import sys
from typing import Any
from unittest.mock import Mock, patch

import torch.distributed as dist

from synth2_lightning.metrics import java
from synth2_lightning.metrics.corpus_metrics import Bleu, Cider, Meteor, Rouge, Spice
from synth2_lightning.metrics.vqa import VQAAccuracy


class WordsInCommon:
    meteor_p = Mock()

    def compute_score(self, references: dict[str, list[str]], hypotheses: dict[str, list[str]]) -> Any:
        # Sums floats in the order of the corpus, as Java does, so that another order changes the result.
        scores = [
            len(set(hypothesis.split()) & set(" ".join(references[key]).split())) / (1 + len(hypothesis.split()))
            for key, (hypothesis,) in hypotheses.items()
        ]
        return sum(scores) / len(scores), scores


class TuplesInCommon(WordsInCommon):
    def compute_score(self, references: dict[str, list[str]], hypotheses: dict[str, list[str]]) -> Any:
        score, scores = super().compute_score(references, {key: hypotheses[key] for key in sorted(hypotheses)})
        return score, [{"All": {"f": each}} for each in scores]


METRICS = (Cider, Bleu, Rouge, VQAAccuracy, Meteor, Spice)
STAND_INS = (
    patch.object(java, "check_java"),
    patch("pycocoevalcap.meteor.meteor.Meteor", WordsInCommon),
    patch("pycocoevalcap.spice.spice.Spice", TuplesInCommon),
)

if __name__ == "__main__":
    for stand_in in STAND_INS:
        stand_in.start()
    rank, size, store, corpus = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    scores = []
    for keys_of_ranks in corpus["splits"]:
        for kind in METRICS:
            metric = kind()
            metric.update([], [], [])
            for key in keys_of_ranks[rank]:
                metric.update([key], [corpus["hypotheses"][key]], [corpus["references"][key]])
            computed = metric.compute()
            values = computed.values() if isinstance(computed, dict) else [computed]
            scores.append([value.item() for value in values])
            assert len(metric.rows) == len(keys_of_ranks[rank])  # rows of other ranks are removed
    sys.stdout.write(json.dumps(scores))
    dist.destroy_process_group()
