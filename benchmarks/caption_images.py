"""Throughput of ``synth2 caption`` in images per second, against a simple loop with the same model.

The loop opens, crops and encodes one image at a time, and captions it with transformers' ``generate`` and the run's
beams. Ours is all of ``caption_images``: reading in threads, batches, our beam search, rows written to disk. Both start
with the model loaded and compute in float32, and alternate over parts of the images. The fraction of identical captions
is reported as well: another order of summation rounds differently, and beam search amplifies that. Without a
checkpoint, the model is a randomly initialized captioner of Scenes.

    python benchmarks/caption_images.py --quick
    python benchmarks/caption_images.py --checkpoint runs/version_0 --images data/flickr8k/images
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import cast

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor
from transformers import GenerationConfig

from report import peak_memory_mib, report
from synth2_lightning.decoders.causal import CausalDecoder
from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.encoders.vqgan import VQGANTokenizer
from synth2_lightning.export.caption_images import caption_images
from synth2_lightning.export.captioner import BATCH_SIZE, Captioner, load_module
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.nn.perceiver import PerceiverResampler
from synth2_lightning.scenes.source import ScenesSource
from synth2_lightning.sources.image_files import FoundImages, find_images
from synth2_lightning.sources.images import center_crop
from synth2_lightning.types import GenerationSettings, Pixels

Captions = dict[str, str]


def render_images(folder: Path, num_images: int) -> None:
    """Save Scenes, every second one as a JPEG in the size of a small photo."""
    source = ScenesSource("train", num_images)
    for index in range(num_images):
        image = source.image(index)
        if index % 2:
            image.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{index:05d}.jpg", quality=90)
        else:
            image.save(folder / f"{index:05d}.png")


def make_model() -> VisionLanguageModule:
    """Return a randomly initialized captioner of Scenes."""
    language_model = NewLanguageModel(
        {"model_type": "gpt2", "n_embd": 192, "n_layer": 3, "n_head": 4, "n_positions": 64},
        "package://synth2_lightning/scenes/vocabulary",
    )
    module = VisionLanguageModule(
        VQGANTokenizer("package://synth2_lightning/scenes/tokenizer"),
        PerceiverResampler(num_latents=16, depth=2, num_heads=4, head_dim=48, num_positions=64),
        PrefixDecoder(language_model),
        GenerationSettings(num_beams=3, max_new_tokens=20),
    )
    module.configure_model()
    return module


def plain_loop(module: VisionLanguageModule, names: Iterable[str]) -> Captions:
    """Caption images one by one."""
    captions = {}
    for name in names:
        with Image.open(name) as image:
            square = center_crop(image.convert("RGB"), module.image_encoder.image_size)
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            captions[name] = generate_with_transformers(module, module.encode_images(Pixels(pixels)))
    return captions


def generate_with_transformers(module: VisionLanguageModule, visual: Tensor) -> str:
    """Return one caption by transformers' ``generate``."""
    decoder = cast(CausalDecoder, module.decoder)
    tokens, tokenizer = decoder.caption_tokenizer, decoder.source.tokenizer
    config = GenerationConfig(
        **asdict(module.generation) | {"repetition_penalty": None, "top_p": None, "temperature": None},
        eos_token_id=tokens.eos_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=None if tokenizer.unk_token_id in (None, tokens.eos_id) else [tokenizer.unk_token_id],
    )
    with decoder.visual_context(visual) as context:
        words = decoder.lm.get_input_embeddings()(tokens.encode_prompts([decoder.prompt]).inputs)
        embeds = torch.cat([context.prefix, words], dim=1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        ids = decoder.lm.generate(inputs_embeds=embeds, attention_mask=mask, generation_config=config)
    return tokens.decode(ids)[0]


def our_command(captioner: Captioner, names: Sequence[str], batch_size: int) -> Captions:
    """Caption images by the implementation of ``synth2 caption --out``."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "captions.csv"
        quiet = Console(quiet=True)
        caption_images(FoundImages(tuple(names)), captioner, out, "csv", batch_size, console=quiet)
        with out.open(newline="") as file:
            return {row["image"]: row["caption"] for row in csv.DictReader(file)}


def timed(run: Callable[[], Captions]) -> tuple[float, Captions]:
    """Return the seconds and the captions of a run."""
    start = time.perf_counter()
    captions = run()
    return time.perf_counter() - start, captions


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="96 images instead of 1,000")
    parser.add_argument("--checkpoint", help="of a captioner (default: a randomly initialized one)")
    parser.add_argument("--images", help="folder of images (default: rendered Scenes)")
    parser.add_argument("--num", type=int, help="number of images")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    num_images, num_turns = args.num or (96 if args.quick else 1000), 2 if args.quick else 10
    with tempfile.TemporaryDirectory() as folder:
        if args.images is None:
            render_images(Path(folder), num_images)
        names = find_images([args.images or folder]).names[:num_images]
        module = load_module(args.checkpoint) if args.checkpoint else make_model()
        captioner = Captioner(module, "cpu")
        plain_loop(module, names[:2]), our_command(captioner, names[:BATCH_SIZE], args.batch_size)  # warms up
        seconds: list[tuple[float, float]] = []
        ours: Captions = {}
        plain: Captions = {}
        for turn in range(num_turns):
            part = names[turn * len(names) // num_turns : (turn + 1) * len(names) // num_turns]
            plain_seconds, some = timed(lambda part=part: plain_loop(module, part))  # type: ignore[misc]
            our_seconds, others = timed(lambda part=part: our_command(captioner, part, args.batch_size))  # type: ignore[misc]
            plain |= some
            ours |= others
            seconds.append((plain_seconds, our_seconds))
        plain_total, our_total = map(sum, zip(*seconds, strict=True))
        report(
            "caption_images",
            plain_total / our_total,
            median_ratio=round(median(one / other for one, other in seconds), 2),
            ours_images_per_second=round(len(names) / our_total, 1),
            plain_images_per_second=round(len(names) / plain_total, 1),
            same_captions=sum(ours[name] == plain[name] for name in names) / len(names),
            num_images=len(names),
            num_beams=module.generation.num_beams,
            batch_size=args.batch_size,
            threads=args.threads,
            peak_memory_mib=peak_memory_mib(),
        )


if __name__ == "__main__":
    main()
