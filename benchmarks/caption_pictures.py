"""How many pictures per second does ``synth2 caption`` write captions of, beside a plain loop of the same model?

The plain loop is what one writes first: open a picture, cut it, encode it, let transformers' own ``generate`` write its
caption with the run's beams, next picture, one at a time. Ours is all of ``caption_pictures``: reading in threads,
batches, our search, rows on the disk. Both start with the model loaded and compute in float32. They take turns over
parts of the pictures, so that both see the same machine. Beside the ratio stands how many captions are the same word
for word: sums in another order round otherwise, and a beam search decides by little. Without a checkpoint the model
has the shape of the one that learns Scenes, and draws its weights.

    python benchmarks/caption_pictures.py --quick
    python benchmarks/caption_pictures.py --checkpoint runs/version_0 --pictures data/flickr8k/images
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
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
from synth2_lightning.caption_command import caption_pictures
from synth2_lightning.captioner import BATCH_SIZE, Captioner, load_module
from synth2_lightning.datamodules.photographs import cut_square
from synth2_lightning.decoders.causal import CausalDecoder
from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.encoders.vqgan import VQGANTokenizer
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.nn.perceiver import PerceiverResampler
from synth2_lightning.scenes.source import ScenesSource
from synth2_lightning.sources.picture_files import FoundPictures, find_pictures
from synth2_lightning.types import GenerationSettings, Pixels

Captions = dict[str, str]


def draw_pictures(folder: Path, num_pictures: int) -> None:
    """Save Scenes, every second one as JPEG at the size of a small photograph."""
    source = ScenesSource("train", num_pictures)
    for index in range(num_pictures):
        picture = source.picture(index)
        if index % 2:
            picture.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{index:05d}.jpg", quality=90)
        else:
            picture.save(folder / f"{index:05d}.png")


def draw_model() -> VisionLanguageModule:
    """Make a captioner of the shape that looks at Scenes, which has learnt nothing."""
    language_model = NewLanguageModel(
        {"model_type": "gpt2", "n_embd": 192, "n_layer": 3, "n_head": 4, "n_positions": 64},
        "package://synth2_lightning/scenes/vocabulary",
    )
    module = VisionLanguageModule(
        VQGANTokenizer("package://synth2_lightning/scenes/tokenizer"),
        partial(PerceiverResampler, num_queries=16, depth=2, num_heads=4, head_dim=48, num_positions=64),
        PrefixDecoder(language_model),
        GenerationSettings(num_beams=3, max_new_tokens=20),
    )
    module.configure_model()
    return module


def plain_loop(module: VisionLanguageModule, names: Iterable[str]) -> Captions:
    """Caption pictures one by one."""
    captions = {}
    for name in names:
        with Image.open(name) as image:
            square = cut_square(image.convert("RGB"), module.image_encoder.image_size)
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            captions[name] = say_by_transformers(module, module.look(Pixels(pixels)))
    return captions


def say_by_transformers(module: VisionLanguageModule, visual: Tensor) -> str:
    """Let the search of transformers write one caption."""
    decoder = cast(CausalDecoder, module.decoder)
    rules, tokenizer = decoder.captions, decoder.source.tokenizer
    config = GenerationConfig(
        **asdict(module.generation) | {"repetition_penalty": None, "top_p": None, "temperature": None},
        eos_token_id=rules.end,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=None if tokenizer.unk_token_id in (None, rules.end) else [tokenizer.unk_token_id],
    )
    with decoder.show(visual) as prefix:
        words = decoder.lm.get_input_embeddings()(rules.encode_prompts([decoder.prompt]).inputs)
        embeds = torch.cat([prefix, words], dim=1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        ids = decoder.lm.generate(inputs_embeds=embeds, attention_mask=mask, generation_config=config)
    return rules.decode(ids)[0]


def our_command(captioner: Captioner, names: Sequence[str], batch_size: int) -> Captions:
    """Caption pictures by what ``synth2 caption --out`` runs."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "captions.csv"
        quiet = Console(quiet=True)
        caption_pictures(FoundPictures(tuple(names)), captioner, out, "csv", batch_size, console=quiet)
        with out.open(newline="") as file:
            return {row["picture"]: row["caption"] for row in csv.DictReader(file)}


def timed(run: Callable[[], Captions]) -> tuple[float, Captions]:
    """Seconds, and what came out."""
    start = time.perf_counter()
    captions = run()
    return time.perf_counter() - start, captions


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="96 pictures instead of 1,000")
    parser.add_argument("--checkpoint", help="of a captioner; without one, a model of drawn weights")
    parser.add_argument("--pictures", help="a folder; without one, Scenes are drawn")
    parser.add_argument("--num", type=int, help="how many pictures")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    num_pictures, num_turns = args.num or (96 if args.quick else 1000), 2 if args.quick else 10
    with tempfile.TemporaryDirectory() as folder:
        if args.pictures is None:
            draw_pictures(Path(folder), num_pictures)
        names = find_pictures([args.pictures or folder]).names[:num_pictures]
        module = load_module(args.checkpoint) if args.checkpoint else draw_model()
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
            "caption_pictures",
            plain_total / our_total,
            median_ratio=round(median(one / other for one, other in seconds), 2),
            ours_pictures_per_second=round(len(names) / our_total, 1),
            plain_pictures_per_second=round(len(names) / plain_total, 1),
            same_captions=sum(ours[name] == plain[name] for name in names) / len(names),
            num_pictures=len(names),
            num_beams=module.generation.num_beams,
            batch_size=args.batch_size,
            threads=args.threads,
            peak_memory_mib=peak_memory_mib(),
        )


if __name__ == "__main__":
    main()
