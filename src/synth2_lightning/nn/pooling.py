"""Sentence embeddings by mean pooling over tokens, as MiniLM and similar encoders were trained."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from synth2_lightning.interfaces import TextEncoder


@torch.no_grad()
def embed_sentences(
    encoder: TextEncoder, sentences: Sequence[str], batch_size: int = 256
) -> Float[Tensor, "sentences dim"]:
    """Return unit-length sentence embeddings, whose dot products are cosine similarities.

    Batches contain sentences of similar length, because padding costs as much as tokens.

    Args:
        encoder: After ``load()``.
        sentences: Not blank.
        batch_size: Sentences per forward pass.

    Returns:
        Embeddings in the order of the sentences, float32 on the CPU.

    Example:
        >>> from synth2_lightning.testing import TinyTextEncoder
        >>> embed_sentences(TinyTextEncoder(), ["a red circle", "two dogs"]).shape
        torch.Size([2, 8])
    """
    order = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
    embeddings: Tensor | None = None
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        states, mask = encoder.encode([sentences[row] for row in rows])
        weights = mask.unsqueeze(-1).to(states.dtype)
        pooled = normalize(((states * weights).sum(1) / weights.sum(1)).float(), dim=1).cpu()
        if embeddings is None:
            embeddings = torch.empty(len(sentences), pooled.shape[1])
        embeddings[rows] = pooled
    return torch.empty(0, encoder.embed_dim) if embeddings is None else embeddings
