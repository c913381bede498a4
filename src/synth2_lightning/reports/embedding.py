"""Caption embeddings with a progress bar."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from synth2_lightning.interfaces import TextEncoder
from synth2_lightning.nn.pooling import embed_sentences

_CHUNK = 1024  # batched by length within a chunk; the progress bar advances per chunk
BATCH_SIZE = 64


def embed_captions(
    encoder: TextEncoder, captions: Sequence[str], label: str, console: Console
) -> Float[Tensor, "captions dim"]:
    """Return embeddings of captions, none of which is blank, as unit vectors, and show a progress bar.

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
