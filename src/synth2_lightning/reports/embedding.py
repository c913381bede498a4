"""Embed captions while telling how far it is."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from synth2_lightning.interfaces import TextEncoder
from synth2_lightning.nn.pooling import embed_sentences

_CHUNK = 1024  # long enough that captions of like length meet in a batch, short enough to tell of it
BATCH_SIZE = 64


def embed_captions(
    encoder: TextEncoder, captions: Sequence[str], label: str, console: Console
) -> Float[Tensor, "captions dim"]:
    """Embed captions as unit vectors, behind a progress bar.

    Args:
        encoder: Loaded.
        captions: None of them blank; at least one.
        label: What the bar says.
        console: Where the bar is shown; it is gone when all are done.

    Example:
        >>> from synth2_lightning.testing import TinyTextEncoder
        >>> embed_captions(TinyTextEncoder(), ["a fox", "two dogs"], "animals", Console(quiet=True)).shape
        torch.Size([2, 8])
    """
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    chunks = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"embedding {label}", total=len(captions))
        for start in range(0, len(captions), _CHUNK):
            chunk = captions[start : start + _CHUNK]
            chunks.append(embed_sentences(encoder, chunk, BATCH_SIZE))
            progress.advance(task, len(chunk))
    return torch.cat(chunks)
