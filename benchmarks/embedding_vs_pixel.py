"""How much faster is a training step on image tokens than on pixels?

Synth² (arXiv 2403.07750) says 1.25 times. The same captioner takes pictures as codebook ids, which are looked up, and
as pixels, which go through the frozen VQ-GAN. How much that is depends on the sizes, which are here: a VQ-GAN of
MUSE's kind (256 pixels, 16 by 16 tokens; the shape of aMUSEd's open one), Flamingo's resampler, and a frozen language
model of SmolLM2-135M's shape. The clock does not mind that all weights are random. Larger language models bring the
ratio down: it falls towards one where the language model takes nearly all of the time.

Steps of both routes alternate in one process; memory is the peak of a process that runs one route.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import VQModel

from report import peak_memory_mib, report
from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.decoders.vocabulary import build_vocabulary
from synth2_lightning.encoders.vqgan import VQGANTokenizer
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.nn.perceiver import PerceiverResampler
from synth2_lightning.types import ImageInput, ImageTextBatch, Pixels, VQTokens

VQGAN = {
    "sample_size": 256,
    "down_block_types": ["DownEncoderBlock2D"] * 5,
    "up_block_types": ["UpDecoderBlock2D"] * 5,
    "block_out_channels": [128, 256, 256, 512, 768],
    "layers_per_block": 2,
    "latent_channels": 64,
    "vq_embed_dim": 64,
    "num_vq_embeddings": 8192,
    "mid_block_add_attention": False,
}
LANGUAGE_MODEL = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
CAPTION = "a brown dog runs over the wet sand of a beach with a red ball"


def write_parts(folder: Path) -> None:
    """Write what the captioner is built from: a VQ-GAN with random weights, and a vocabulary."""
    VQModel(**VQGAN).save_pretrained(folder / "vqgan")
    build_vocabulary([CAPTION], 1, folder / "vocabulary")


def captioner(folder: Path) -> VisionLanguageModule:
    """Build it; the language model has random weights and is frozen."""
    module = VisionLanguageModule(
        VQGANTokenizer(str(folder / "vqgan")),
        lambda dim, width: PerceiverResampler(dim, width, num_queries=64, depth=6, num_positions=256),
        PrefixDecoder(NewLanguageModel(LANGUAGE_MODEL, str(folder / "vocabulary"))),
    )
    module.configure_model()
    module.decoder.lm.requires_grad_(False)
    return module.train()


def batches(module: VisionLanguageModule, batch_size: int) -> dict[str, ImageTextBatch]:
    """Make pictures of noise, as tokens and as pixels; no encoder runs, for it would count in the memory of both."""
    encoder = module.image_encoder
    assert isinstance(encoder, VQGANTokenizer)
    ids = torch.randint(0, encoder.codebook_size, (batch_size, encoder.num_tokens, 1))
    pixels = torch.randint(0, 256, (batch_size, 3, 256, 256), dtype=torch.uint8)
    images: dict[str, ImageInput] = {"token": VQTokens(ids, encoder.codebook), "pixel": Pixels(pixels)}
    names = tuple(map(str, range(batch_size)))
    rows = ((CAPTION,) * batch_size, names, ("noise",) * batch_size)
    return {route: ImageTextBatch(image, *rows) for route, image in images.items()}


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
    parser.add_argument("--quick", action="store_true", help="two pictures instead of eight, and fewer steps")
    parser.add_argument("--only", nargs=2, metavar=("ROUTE", "PARTS"), help="print the peak memory of one route")
    args = parser.parse_args()
    batch_size, num_steps = (2, 2) if args.quick else (8, 8)
    torch.manual_seed(0)
    if args.only:
        route, parts = args.only
        print(json.dumps(peak_memory(route, Path(parts), batch_size)))
        return
    with TemporaryDirectory() as folder:
        write_parts(Path(folder))
        seconds = race(Path(folder), batch_size, num_steps)
        memory = {route: _memory_of_process(route, folder, args.quick) for route in seconds}
    report(
        "embedding_vs_pixel",
        seconds["pixel"] / seconds["token"],
        token_steps_per_s=1 / seconds["token"],
        pixel_steps_per_s=1 / seconds["pixel"],
        token_peak_mib=memory["token"],
        pixel_peak_mib=memory["pixel"],
        batch_size=batch_size,
    )


def race(parts: Path, batch_size: int, num_steps: int) -> dict[str, float]:
    """Run both routes by turns; median seconds of a step."""
    module, optimizer = learner(parts)
    seconds: dict[str, list[float]] = {"token": [], "pixel": []}
    for _ in range(num_steps + 1):
        for route, batch in batches(module, batch_size).items():
            seconds[route].append(step(module, optimizer, batch))
    return {route: statistics.median(times[1:]) for route, times in seconds.items()}  # the first step warms up


def peak_memory(route: str, parts: Path, batch_size: int) -> float:
    """Take a step on one route; MiB."""
    module, optimizer = learner(parts)
    step(module, optimizer, batches(module, batch_size)[route])
    return peak_memory_mib()


def learner(parts: Path) -> tuple[VisionLanguageModule, torch.optim.Optimizer]:
    """Build a captioner and its optimizer."""
    module = captioner(parts)
    return module, torch.optim.AdamW([p for p in module.parameters() if p.requires_grad])


def _memory_of_process(route: str, parts: str, quick: bool) -> float:
    command = [sys.executable, __file__, "--only", route, parts, *(["--quick"] if quick else [])]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output.splitlines()[-1]))


if __name__ == "__main__":
    main()
