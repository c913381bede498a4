"""Shards of control regimes: the captions of generated pairs with other tokens."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from synth2_lightning.encoders.text import PretrainedTextEncoder
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.types import VQTokens

_ROWS = 500


def load_shards(folder: str | Path, limit: int | None = None) -> ShardReader:
    """Return a loaded reader of a shard folder, or of its first rows."""
    reader = ShardReader(str(folder), limit)
    reader.load()
    return reader


def write_blank(folder: Path, synthetic: ShardReader) -> None:
    """Write a control: all captions with the same tokens, which measures the gain from text alone."""
    _write(folder, synthetic, lambda rows: torch.zeros_like(synthetic.read(rows).tokens.ids))


def write_shuffled(folder: Path, synthetic: ShardReader) -> None:
    """Write a control: each caption with the tokens of another one."""
    order = torch.randperm(len(synthetic), generator=torch.Generator().manual_seed(0)).tolist()
    _write(folder, synthetic, lambda rows: synthetic.read([order[row] for row in rows]).tokens.ids)


def write_nearest(folder: Path, synthetic: ShardReader, real: ShardReader) -> None:
    """Write a control: each caption with the tokens of the real photo whose caption is most similar, by MiniLM."""
    encoder = PretrainedTextEncoder("weights://all-minilm-l6-v2", max_length=32, dtype="auto")
    encoder.load()
    photos = range(len(real))
    captions = [(row, caption) for row in photos for caption in real.read([row]).captions[0]]
    keys = _embed(encoder, [caption for _, caption in captions])
    described = [synthetic.read([row]).captions[0] for row in range(len(synthetic))]
    # The images of a record have all of its captions: each takes another one.
    queries = _embed(encoder, [texts[row % len(texts)] for row, texts in enumerate(described)])
    places = [(queries[first : first + _ROWS] @ keys.T).argmax(1) for first in range(0, len(queries), _ROWS)]
    nearest = [captions[place][0] for place in torch.cat(places).tolist()]
    _write(folder, synthetic, lambda rows: real.read([nearest[row] for row in rows]).tokens.ids)


def _write(folder: Path, synthetic: ShardReader, choose: Callable[[range], Tensor]) -> None:
    """Write the captions of generated pairs with other tokens; finished shards are kept.

    Args:
        folder: Folder of the shards.
        synthetic: The generated pairs, loaded.
        choose: Returns ids of shape (rows, tokens, levels) for rows of the pairs.
    """
    if (folder / "manifest.json").exists():
        return
    writer = ShardWriter(folder)
    for first in range(0, len(synthetic), _ROWS):
        rows = range(first, min(first + _ROWS, len(synthetic)))
        pairs = synthetic.read_all_columns(rows)  # scores included, so that a filter keeps the same captions
        tokens = VQTokens(choose(rows), pairs.tokens.codebook)
        samples = tuple(replace(sample, source=folder.name) for sample in pairs.samples)
        writer.append(replace(pairs, tokens=tokens, samples=samples))
    writer.close()
    finish(folder, {"control": folder.name})


def _embed(encoder: PretrainedTextEncoder, captions: list[str]) -> Tensor:
    """Return unit vectors of shape (captions, dim)."""
    parts = []
    for first in range(0, len(captions), _ROWS):
        embeddings, mask = encoder.encode(captions[first : first + _ROWS])
        weights = mask[..., None].float()
        parts.append(normalize((embeddings * weights).sum(1) / weights.sum(1), dim=-1))
    return torch.cat(parts)
