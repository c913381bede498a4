"""How much faster is a training step on image tokens than on pixels?

Synth² (arXiv 2403.07750) says 1.25 times. The same captioner takes the same Scenes as codebook ids, which are looked
up, and as pixels, which go through the frozen VQ-GAN. Steps of both routes alternate in one process; memory is the peak
of a process that runs one route.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch

from report import peak_memory_mib, report
from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.encoders.vqgan import VQGANTokenizer
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.nn.perceiver import PerceiverResampler
from synth2_lightning.scenes.source import ScenesSource
from synth2_lightning.types import ImageInput, ImageTextBatch, Pixels

LANGUAGE_MODEL = {"model_type": "gpt2", "n_embd": 192, "n_layer": 3, "n_head": 4, "n_positions": 64}


def captioner() -> VisionLanguageModule:
    """Build the captioner of configs/mixed.yaml."""
    module = VisionLanguageModule(
        VQGANTokenizer("package://synth2_lightning/scenes/tokenizer"),
        lambda dim, width: PerceiverResampler(dim, width, num_queries=16, depth=2, num_heads=4, head_dim=48),
        PrefixDecoder(NewLanguageModel(LANGUAGE_MODEL, "package://synth2_lightning/scenes/vocabulary")),
    )
    module.configure_model()
    return module.train()


def batches(module: VisionLanguageModule, batch_size: int) -> dict[str, ImageTextBatch]:
    """Draw the same pictures once as pixels, once as tokens."""
    source = ScenesSource("train", num_pictures=batch_size)
    source.load()
    import numpy as np

    pictures = np.stack([np.asarray(source.picture(index)) for index in range(batch_size)])
    pixels = Pixels(torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous())
    captions = tuple(source.captions(index)[0] for index in range(batch_size))
    names = tuple(map(str, range(batch_size)))
    tokenizer = module.image_encoder
    assert isinstance(tokenizer, VQGANTokenizer)
    images: dict[str, ImageInput] = {"token": tokenizer.tokenize(pixels), "pixel": pixels}
    return {route: ImageTextBatch(image, captions, names, ("scenes",) * batch_size) for route, image in images.items()}


def step(module: VisionLanguageModule, optimizer: torch.optim.Optimizer, batch: ImageTextBatch) -> float:
    """Train on a batch; seconds that it took."""
    started = time.perf_counter()
    optimizer.zero_grad()
    module.compute_loss(module.look(batch.image), batch).mean().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return time.perf_counter() - started


def main() -> None:
    """Print one JSON line; ``ratio`` is steps per second on tokens over steps per second on pixels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--only", choices=("token", "pixel"), help="run one route and print its peak memory")
    args = parser.parse_args()
    module = captioner()
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad])
    routes = batches(module, args.batch_size)
    if args.only:
        for _ in range(3):
            step(module, optimizer, routes[args.only])
        print(json.dumps(peak_memory_mib()))
        return
    num_steps = 12 if args.quick else 60
    seconds: dict[str, list[float]] = {route: [] for route in routes}
    for _ in range(num_steps + 2):
        for route, batch in routes.items():
            seconds[route].append(step(module, optimizer, batch))
    medians = {route: statistics.median(times[2:]) for route, times in seconds.items()}  # two steps warm up
    memory = {route: _peak_memory(route, args.batch_size) for route in routes}
    report(
        "embedding_vs_pixel",
        medians["pixel"] / medians["token"],
        token_steps_per_s=1 / medians["token"],
        pixel_steps_per_s=1 / medians["pixel"],
        token_peak_mib=memory["token"],
        pixel_peak_mib=memory["pixel"],
        batch_size=args.batch_size,
    )


def _peak_memory(route: str, batch_size: int) -> float:
    command = [sys.executable, __file__, "--only", route, "--batch-size", str(batch_size)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output.splitlines()[-1]))


if __name__ == "__main__":
    main()
