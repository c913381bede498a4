"""Tiny photos and shards: image ``i`` has the gray value ``i``, row ``i`` has the ids ``i``."""

from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image

from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.sources.folder import FolderSource
from synth2_lightning.types import SampleInfo, TokenizedImages, VQTokens

MakeSource = Callable[..., FolderSource]


@pytest.fixture
def make_source(tmp_path: Path) -> MakeSource:
    def make(num_images: int, num_captions: int = 2, bad: Sequence[int] = (), name: str = "real") -> FolderSource:
        folder = tmp_path / name
        folder.mkdir()
        for number in range(num_images):
            if number in bad:
                (folder / f"{number:03d}.png").write_bytes(b"damaged")
            else:
                Image.new("L", (8, 8), number).save(folder / f"{number:03d}.png")
            captions = "\n".join(f"caption {caption} of {number:03d}" for caption in range(num_captions))
            (folder / f"{number:03d}.txt").write_text(captions)
        return FolderSource(str(folder), name)

    return make


@pytest.fixture
def make_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    def make(
        num_rows: int,
        scores: tuple[tuple[float, ...], ...] = (),
        keys: Sequence[str] = (),
        captions: tuple[tuple[str, ...], ...] = (),
        sources: Sequence[str] = (),
    ) -> str:
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        folder = tmp_path / f"shards{len(list(tmp_path.glob('shards*'))) or ''}"
        writer = ShardWriter(folder)
        ids = torch.arange(num_rows)[:, None, None].expand(num_rows, 4, 1)
        names = keys or [f"s{number}" for number in range(num_rows)]
        samples = tuple(map(SampleInfo, names, sources or ["synthetic"] * num_rows))
        texts = captions or tuple((f"synthetic {number}",) for number in range(num_rows))
        tokens = VQTokens(ids, "tiny-16:00000000")
        writer.append(TokenizedImages(samples, texts, tokens, 512, scores))
        writer.close()
        finish(folder, {})
        return str(folder)

    return make
