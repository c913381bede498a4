"""Single rank for ``test_clip_score.py``: ``clip_score_rank.py RANK SIZE STORE`` writes its scores as JSON."""

import json
import sys

import torch.distributed as dist

from synth2_lightning.metrics.clip_score import ClipScore, RefClipScore
from synth2_lightning.testing import TinyImageTextEncoder, tiny_batch
from synth2_lightning.types import Pixels

if __name__ == "__main__":
    rank, size, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    batch, alone, both = tiny_batch(8), ClipScore(TinyImageTextEncoder()), RefClipScore(TinyImageTextEncoder())
    assert isinstance(batch.image, Pixels)
    # As in a distributed sampler, padded with repeats.
    for index in [*range(8), *range(-8 % size)][rank::size]:
        own = slice(index, index + 1)
        pixels = Pixels(batch.image.values[own])
        alone.update(batch.keys[own], pixels, batch.captions[own])
        both.update(batch.keys[own], pixels, batch.captions[own], batch.references[own])
    scores = {name: value.item() for name, value in both.compute().items()}
    sys.stdout.write(json.dumps([alone.compute().item(), scores]))
    dist.destroy_process_group()
