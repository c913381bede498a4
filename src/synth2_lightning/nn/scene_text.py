"""Embeddings of scenes, which several captions describe."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from synth2_lightning.interfaces import TextEncoder
from synth2_lightning.nn.transfer import to_device
from synth2_lightning.types import Condition


def encode_scenes(
    encoder: TextEncoder, scenes: Sequence[Condition]
) -> tuple[Float[Tensor, "scenes length dim"], Bool[Tensor, "scenes length"]]:
    """Return the token embeddings of the captions of each scene, one caption after another, and a mask.

    Each caption is encoded alone. Cross-attention has no positions: an image attends to all captions of its scene.

    Args:
        encoder: After ``load()``.
        scenes: Captions of each scene.

    Returns:
        The embeddings, padded after each caption, and a mask that is true at text tokens. For scenes of one caption
        they are those of ``encoder.encode``.

    Example:
        >>> from synth2_lightning.testing import TinyTextEncoder
        >>> embeddings, mask = encode_scenes(TinyTextEncoder(), [("a field", "a dark field"), "a bright field"])
        >>> embeddings.shape, mask.sum(1)
        (torch.Size([2, 6, 8]), tensor([5, 3]))
    """
    groups = [(scene,) if isinstance(scene, str) else scene for scene in scenes]
    embeddings, mask = encoder.encode([text for group in groups for text in group])
    if len(embeddings) == len(groups):
        return embeddings, mask
    sizes = torch.tensor([len(group) for group in groups])
    is_text = torch.arange(int(sizes.max())) < sizes[:, None]
    rows = torch.zeros(is_text.shape, dtype=torch.long).masked_scatter(is_text, torch.arange(len(embeddings)))
    rows, is_text = to_device(rows, embeddings.device), to_device(is_text, embeddings.device)
    return embeddings[rows].flatten(1, 2), (mask[rows] & is_text[..., None]).flatten(1, 2)
