"""Throughput of data loading in pairs per second: token shards against JPEGs.

JPEGs of 224 pixels are decoded by ``RealDataModule``; shards with 256 ids (16 by 16, one level, as of a VQ-GAN at 256
pixels) are read by ``SyntheticDataModule``. Both have the same number of pairs, batch size and loader, their files are
in the page cache, and they alternate. The ratio is the shards' rate over the JPEGs' rate.
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
from synth2_lightning.types import SampleInfo, TokenizedImages, VQTokens

_SIZE, _NUM_TOKENS, _CODEBOOK_SIZE = 224, 256, 8192


class Loading(TypedDict):
    """Arguments of both datamodules."""

    batch_size: int
    num_workers: int


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pairs; under 50 seconds on two cores")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument(
        "--num-workers", type=int, default=0, help="with 0, one core and no transport between processes"
    )
    parser.add_argument("--repeats", type=int, default=7, help="measurements per side; the ratio is of the medians")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    num_pairs, seconds = (2048, 1.0) if settings.quick else (16384, 5.0)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
        write_photos(folder / "photos", num_pairs)
        write_shards(folder / "shards", num_pairs)
        loading = Loading(batch_size=settings.batch_size, num_workers=settings.num_workers)
        photos = RealDataModule(FolderSource(str(folder / "photos")), image_size=_SIZE, **loading)
        tokens = SyntheticDataModule(str(folder / "shards"), **loading)
        loaders = [make_loader(photos), make_loader(tokens)]
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
            jpegs_bytes_per_pair=size_of(folder / "photos") / num_pairs,
            num_pairs=num_pairs,
            **loading,
        )


def make_loader(data: ImageTextDataModule) -> ResumableDataLoader:
    """Return the training dataloader of a datamodule."""
    data.setup("fit")
    return data.train_dataloader()


def measure(loader: ResumableDataLoader, seconds: float) -> float:
    """Return pairs per second over complete epochs that take at least ``seconds`` in total."""
    start, num_pairs = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        num_pairs += sum(len(batch) for batch in loader)
    return num_pairs / (time.perf_counter() - start)


def write_photos(folder: Path, num_images: int) -> None:
    """Write JPEGs of smooth noise at quality 90, with about as many bytes as photos of this size."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(num_images):
        coarse = Image.fromarray(generator.integers(0, 256, (_SIZE // 8, _SIZE // 8, 3), dtype=np.uint8))
        image = coarse.resize((_SIZE, _SIZE), Image.Resampling.BICUBIC).filter(ImageFilter.DETAIL)
        image.save(folder / f"{number:06d}.jpg", quality=90)
        (folder / f"{number:06d}.txt").write_text(f"a picture of noise, number {number}")


def write_shards(folder: Path, num_rows: int) -> None:
    """Write shards of random tokens."""
    generator = torch.Generator().manual_seed(0)
    writer = ShardWriter(folder)
    for start in range(0, num_rows, 512):
        numbers = range(start, min(start + 512, num_rows))
        ids = torch.randint(0, _CODEBOOK_SIZE, (len(numbers), _NUM_TOKENS, 1), generator=generator)
        samples = tuple(SampleInfo(str(number), "synthetic") for number in numbers)
        captions = tuple((f"a picture of noise, number {number}",) for number in numbers)
        writer.append(TokenizedImages(samples, captions, VQTokens(ids, "noise:0"), _CODEBOOK_SIZE))
    writer.close()
    finish(folder, provenance={})


def size_of(folder: Path) -> int:
    """Return the total size in bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir())


if __name__ == "__main__":
    main()
