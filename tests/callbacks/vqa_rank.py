"""One rank of ``test_vqa.py``: ``vqa_rank.py RANK SIZE STORE`` writes the scores of the callback."""

import json
import sys
from dataclasses import replace

import torch.distributed as dist

from synth2_lightning.callbacks.vqa import VQAAccuracyCallback
from synth2_lightning.testing import tiny_batch
from synth2_lightning.types import CaptionOutput, SampleInfo

QUESTIONS = ("is it red?", "is it blue?", "how many stars?", "how many dots?", "is it round?")
PEOPLE = ("yes", "no", "2", "3", "no")
ANSWERS = ("yes", "yes", "2", "2", "no")


def take(callback: VQAAccuracyCallback, number: int) -> None:
    references = ((PEOPLE[number],) * 10,)
    keys = (f"key {number}",)
    batch = replace(
        tiny_batch(1), samples=(SampleInfo(keys[0], "tiny"),), prompts=(QUESTIONS[number],), references=references
    )
    callback.update(CaptionOutput(keys=keys, captions=(ANSWERS[number],), references=references), batch)


if __name__ == "__main__":
    rank, size, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    answered = VQAAccuracyCallback()
    # As in a distributed sampler, padded with repeats.
    for dealt in [*range(5), *range(-5 % size)][rank::size]:
        take(answered, dealt)
    with answered._metric.sync_context():
        corpus = answered._metric.corpus()
    result = answered.score(*corpus)
    sys.stdout.write(json.dumps([result.value, result.card, result.rows]))
    dist.destroy_process_group()
