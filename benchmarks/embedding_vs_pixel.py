"""Speed of a training step on image tokens against one on pixels, and CIDEr after training on each.

Synth² (arXiv 2403.07750) reports 1.25 times. The same captioner gets images as codebook ids, which are looked up, and
as pixels, which the frozen VQ-GAN encodes. The ratio depends on the sizes: here a VQ-GAN like MUSE's (256 pixels, 16 by
16 tokens; the shape of aMUSEd's), Flamingo's resampler, and a frozen language model of SmolLM2-135M's shape, all with
random weights. With larger language models the ratio approaches one.

Steps of both routes alternate in one process; memory is the peak of a process that runs one route. ``ratio`` compares
steps on given images. ``ratio_from_captions`` includes the generation of tokens by a generator of about half the
language model's size in twelve steps, and on the pixel route their decoding; these parts are timed separately and
added. The abstract names no sizes of generator and language model: these are choices.

Then the captioner of Scenes is trained on generated pairs by both routes, and both CIDErs are printed. On the pixel
route the tokens are decoded and the images encoded once beforehand, because the codes are the same in every step.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import VQModel

from report import peak_memory_mib, report
from synth2_lightning.cli.trainer import run_trainer
from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.decoders.vocabulary import build_vocabulary
from synth2_lightning.encoders.text import NewTextEncoder
from synth2_lightning.encoders.vqgan import VQGANTokenizer
from synth2_lightning.generators.muse import MuseGenerator, save_generator
from synth2_lightning.io.locations import resolve
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.nn.maskgit import MaskGit
from synth2_lightning.nn.perceiver import PerceiverResampler
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.types import ImageInput, ImageTextBatch, Pixels, SampleInfo, VQTokens

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
TEXT_ENCODER = {
    "model_type": "bert",
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
}
SHIPPED = "package://synth2_lightning/scenes/shards"
CAPTION = "a brown dog runs over the wet sand of a beach with a red ball"


def write_parts(folder: Path) -> None:
    """Write the files of captioner and generator: a VQ-GAN with random weights, a vocabulary, a generator."""
    VQModel(**VQGAN).save_pretrained(folder / "vqgan")
    build_vocabulary([CAPTION], 1, folder / "vocabulary")
    tokenizer = VQGANTokenizer(str(folder / "vqgan"))
    tokenizer.load()
    reader = text_encoder(folder)
    reader.load()
    network = MaskGit(
        tokenizer.embed_dim, tokenizer.codebook_size, 1, (16, 16), reader.embed_dim, width=576, depth=12, num_heads=9
    )
    save_generator(folder / "generator", network, reader, tokenizer.codebook)


def text_encoder(folder: Path) -> NewTextEncoder:
    """Return the text encoder of the generator."""
    return NewTextEncoder(TEXT_ENCODER, str(folder / "vocabulary"))


def captioner(folder: Path) -> VisionLanguageModule:
    """Return the captioner; its language model has random weights and is frozen."""
    module = VisionLanguageModule(
        VQGANTokenizer(str(folder / "vqgan")),
        PerceiverResampler(num_latents=64, depth=6, num_positions=256),
        PrefixDecoder(NewLanguageModel(LANGUAGE_MODEL, str(folder / "vocabulary"))),
    )
    module.configure_model()
    module.decoder.lm.requires_grad_(False)
    return module.train()


def batches(module: VisionLanguageModule, batch_size: int) -> dict[str, ImageTextBatch]:
    """Return noise images as tokens and as pixels; no encoder runs, because that would add to the memory of both."""
    encoder = module.image_encoder
    assert isinstance(encoder, VQGANTokenizer)
    ids = torch.randint(0, encoder.codebook_size, (batch_size, encoder.num_tokens, 1))
    pixels = torch.randint(0, 256, (batch_size, 3, 256, 256), dtype=torch.uint8)
    images: dict[str, ImageInput] = {"token": VQTokens(ids, encoder.codebook), "pixel": Pixels(pixels)}
    samples = tuple(SampleInfo(str(number), "noise") for number in range(batch_size))
    return {route: ImageTextBatch(image, (CAPTION,) * batch_size, samples) for route, image in images.items()}


def synthesize(generator: MuseGenerator, batch: ImageTextBatch) -> ImageTextBatch:
    """Replace a batch's images by generated tokens."""
    return replace(batch, image=generator.generate(batch.captions, range(len(batch))))


def decode(generator: MuseGenerator, batch: ImageTextBatch) -> ImageTextBatch:
    """Replace a batch's tokens by decoded images."""
    assert isinstance(batch.image, VQTokens)
    return replace(batch, image=generator.tokenizer.detokenize(batch.image))


def step(module: VisionLanguageModule, optimizer: torch.optim.Optimizer, batch: ImageTextBatch) -> float:
    """Train on a batch; return the seconds."""
    started = time.perf_counter()
    optimizer.zero_grad()
    module.compute_loss(module.encode_images(batch.image), batch).mean().backward()
    optimizer.step()
    return time.perf_counter() - started


def main() -> None:
    """Run the benchmark; ``ratio`` is steps per second on tokens over steps per second on pixels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one image instead of eight, one step, no CIDEr")
    parser.add_argument("--shards", default=SHIPPED, help="generated pairs to train on (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=600, help="training steps (default: %(default)s)")
    parser.add_argument("--only", nargs=2, metavar=("ROUTE", "PARTS"), help="print the peak memory of one route")
    args = parser.parse_args()
    batch_size, num_steps = (1, 1) if args.quick else (8, 8)
    torch.manual_seed(0)
    if args.only:
        route, parts = args.only
        print(json.dumps(peak_memory(route, Path(parts), batch_size)))
        return
    with TemporaryDirectory() as folder:
        write_parts(Path(folder))
        seconds = race(Path(folder), batch_size, num_steps)
        routes = () if args.quick else ("token", "pixel", "captions_token", "captions_pixel")
        memory = {f"{route}_peak_mib": _memory_of_process(route, folder) for route in routes}
        scores = {} if args.quick else train(resolve(args.shards, "folder of shards"), Path(folder), args.steps)
    captions_token = seconds["generate"] + seconds["token"]
    captions_pixel = seconds["generate"] + seconds["decode"] + seconds["pixel"]
    report(
        "embedding_vs_pixel",
        seconds["pixel"] / seconds["token"],
        token_steps_per_s=1 / seconds["token"],
        pixel_steps_per_s=1 / seconds["pixel"],
        ratio_from_captions=captions_pixel / captions_token,
        captions_token_steps_per_s=1 / captions_token,
        captions_pixel_steps_per_s=1 / captions_pixel,
        generate_seconds=seconds["generate"],
        decode_seconds=seconds["decode"],
        **memory,
        batch_size=batch_size,
        **scores,
    )


def race(parts: Path, batch_size: int, num_steps: int) -> dict[str, float]:
    """Alternate steps of both routes, then time generation and decoding; return median seconds of each part."""
    module, optimizer = captioner_and_optimizer(parts)
    seconds: dict[str, list[float]] = {"token": [], "pixel": [], "generate": [], "decode": []}
    for number in range(num_steps + 1):
        for route, batch in batches(module, batch_size).items():
            if number or route == "token":  # the first step on tokens warms up; on pixels, a step takes many seconds
                seconds[route].append(step(module, optimizer, batch))
    del seconds["token"][0]
    generator, batch = load_generator(module, parts), batches(module, batch_size)["token"]
    for _ in range(max(1, num_steps // 2)):
        started = time.perf_counter()
        generated = synthesize(generator, batch)
        seconds["generate"].append(time.perf_counter() - started)
        decode(generator, generated)
        seconds["decode"].append(time.perf_counter() - started - seconds["generate"][-1])
    return {part: statistics.median(times) for part, times in seconds.items()}


def peak_memory(route: str, parts: Path, batch_size: int) -> float:
    """Return the peak memory in MiB of a step on one route."""
    module, optimizer = captioner_and_optimizer(parts)
    kind = route.removeprefix("captions_")
    batch = batches(module, batch_size)[kind]
    if route != kind:
        generator = load_generator(module, parts)
        batch = synthesize(generator, batch)
        batch = decode(generator, batch) if kind == "pixel" else batch
    step(module, optimizer, batch)
    return peak_memory_mib()


def captioner_and_optimizer(parts: Path) -> tuple[VisionLanguageModule, torch.optim.Optimizer]:
    """Return a captioner and its optimizer."""
    module = captioner(parts)
    return module, torch.optim.AdamW([p for p in module.parameters() if p.requires_grad])


def load_generator(module: VisionLanguageModule, parts: Path) -> MuseGenerator:
    """Return a generator with the captioner's VQ-GAN."""
    assert isinstance(module.image_encoder, VQGANTokenizer)
    generator = MuseGenerator(str(parts / "generator"), module.image_encoder, text_encoder(parts))
    generator.load()
    return generator


def train(shards: Path, folder: Path, num_steps: int) -> dict[str, float]:
    """Train the captioner of Scenes on generated tokens by both routes; return CIDEr on rendered images.

    Args:
        shards: Generated pairs of Scenes.
        folder: Temporary folder for runs and shards.
        num_steps: Training steps of each route.
    """
    encode_again(shards, folder / "shards")
    scores = {}
    for route, pairs in (("token", shards), ("pixel", folder / "shards")):
        words = ["fit", "--config", "synthetic.yaml", f"--data.init_args.synthetic.init_args.shards={pairs}"]
        words += ["--data.init_args.synthetic.init_args.keep_fraction=1.0"]
        words += [f"--trainer.max_steps={num_steps}", f"--trainer.val_check_interval={num_steps}"]
        with contextlib.chdir(folder):
            metrics = run_trainer(words).trainer.callback_metrics
        scores[f"{route}_cider"] = float(metrics["val/cider"])
    return {**scores, "cider_steps": num_steps}


def encode_again(shards: Path, folder: Path) -> None:
    """Write shards with decoded and encoded image tokens of Scenes, the training data of the pixel route."""
    tokenizer = VQGANTokenizer("package://synth2_lightning/scenes/tokenizer")
    tokenizer.load()
    reader, writer = ShardReader(shards), ShardWriter(folder)
    reader.load()
    for start in range(0, len(reader), 256):
        images = reader.read(range(start, min(start + 256, len(reader))))
        writer.append(replace(images, tokens=tokenizer.tokenize(tokenizer.detokenize(images.tokens))))
    writer.close()
    finish(folder, provenance={})


def _memory_of_process(route: str, parts: str) -> float:
    command = [sys.executable, __file__, "--only", route, parts]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output.splitlines()[-1]))


if __name__ == "__main__":
    main()
