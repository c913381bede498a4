"""Does the data path of image tokens outrun that of photographs? Pairs per second of both, in one run.

Photographs are JPEGs at 224 pixels, decoded, through ``RealDataModule``; tokens are rows of shards with 256 ids (16 by
16, one level, what a VQ-GAN makes of 256 pixels), through ``SyntheticDataModule``. Same number of pairs, same batch
size, same loaders, files in the page cache; the two take turns. The ratio is the shards' rate over the JPEGs' rate.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from PIL import Image, ImageFilter

from report import report
from synth2_lightning.datamodules.base import ImageTextDataModule
from synth2_lightning.datamodules.loader import ResumableDataLoader
from synth2_lightning.datamodules.real import RealDataModule
from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.sources.folder import FolderSource
from synth2_lightning.types import TokenizedImages, VQTokens

_SIZE, _NUM_TOKENS, _CODEBOOK_SIZE = 224, 256, 8192


class Loading(TypedDict):
    """What both sides are loaded with."""

    batch_size: int
    num_workers: int


def main() -> None:
    """Write both kinds of data, read them, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pairs: under 50 seconds on two cores")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--num-workers", type=int, default=0, help="0 measures one core, and no transport")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each; the median counts")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    num_pairs, seconds = (2048, 1.0) if settings.quick else (16384, 5.0)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
        write_photographs(folder / "photographs", num_pairs)
        write_shards(folder / "shards", num_pairs)
        loading = Loading(batch_size=settings.batch_size, num_workers=settings.num_workers)
        photographs = RealDataModule(FolderSource(str(folder / "photographs")), image_size=_SIZE, **loading)
        tokens = SyntheticDataModule(str(folder / "shards"), **loading)
        loaders = [make_loader(photographs), make_loader(tokens)]
        for loader in loaders:
            measure(loader, seconds)
        rates = [[measure(loader, seconds) for loader in loaders] for _ in range(settings.repeats)]
        jpeg_rates, shard_rates = zip(*rates, strict=True)
        report(
            "data",
            ratio=statistics.median(shard_rates) / statistics.median(jpeg_rates),
            shards_pairs_per_second=shard_rates,
            jpegs_pairs_per_second=jpeg_rates,
            shards_bytes_per_pair=size_of(folder / "shards") / num_pairs,
            jpegs_bytes_per_pair=size_of(folder / "photographs") / num_pairs,
            num_pairs=num_pairs,
            **loading,
        )


def make_loader(data: ImageTextDataModule) -> ResumableDataLoader:
    """Set a datamodule up to be learnt from."""
    data.setup("fit")
    return data.train_dataloader()


def measure(loader: ResumableDataLoader, seconds: float) -> float:
    """Pairs per second over whole epochs that take at least so long together."""
    start, num_pairs = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        num_pairs += sum(len(batch) for batch in loader)
    return num_pairs / (time.perf_counter() - start)


def write_photographs(folder: Path, num_pictures: int) -> None:
    """Write JPEGs of smooth noise at quality 90, as many bytes as photographs of this size have."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(num_pictures):
        coarse = Image.fromarray(generator.integers(0, 256, (_SIZE // 8, _SIZE // 8, 3), dtype=np.uint8))
        picture = coarse.resize((_SIZE, _SIZE), Image.Resampling.BICUBIC).filter(ImageFilter.DETAIL)
        picture.save(folder / f"{number:06d}.jpg", quality=90)
        (folder / f"{number:06d}.txt").write_text(f"a picture of noise, number {number}")


def write_shards(folder: Path, num_rows: int) -> None:
    """Write shards of random tokens."""
    generator = torch.Generator().manual_seed(0)
    writer = ShardWriter(folder)
    for start in range(0, num_rows, 512):
        numbers = range(start, min(start + 512, num_rows))
        ids = torch.randint(0, _CODEBOOK_SIZE, (len(numbers), _NUM_TOKENS, 1), generator=generator)
        keys = tuple(str(number) for number in numbers)
        captions = tuple((f"a picture of noise, number {number}",) for number in numbers)
        sources = ("synthetic",) * len(keys)
        writer.append(TokenizedImages(keys, sources, captions, VQTokens(ids, "noise:0"), _CODEBOOK_SIZE))
    writer.close()
    finish(folder, provenance={})


def size_of(folder: Path) -> int:
    """Bytes of the files of a folder."""
    return sum(path.stat().st_size for path in folder.iterdir())


if __name__ == "__main__":
    main()
