"""Embeddings of conditions: of a caption, or of several captions of the same image."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from synth2_lightning.interfaces import TextEncoder
from synth2_lightning.nn.transfer import to_device
from synth2_lightning.types import Condition


def encode_conditions(
    encoder: TextEncoder, conditions: Sequence[Condition]
) -> tuple[Float[Tensor, "conditions length dim"], Bool[Tensor, "conditions length"]]:
    """Return the token embeddings of the captions of each condition, one after another, and a mask.

    Each caption is encoded alone. Cross-attention has no positions: an image attends to all of its captions.

    Args:
        encoder: After ``load()``.
        conditions: A caption, or several, of each image.

    Returns:
        The embeddings, padded after each caption, and a mask that is true at text tokens. For conditions of one caption
        they are those of ``encoder.encode``.

    Example:
        >>> from synth2_lightning.testing import TinyTextEncoder
        >>> embeddings, mask = encode_conditions(TinyTextEncoder(), [("a field", "a dark field"), "a bright field"])
        >>> embeddings.shape, mask.sum(1)
        (torch.Size([2, 6, 8]), tensor([5, 3]))
    """
    groups = [(each,) if isinstance(each, str) else each for each in conditions]
    embeddings, mask = encoder.encode([text for group in groups for text in group])
    if len(embeddings) == len(groups):
        return embeddings, mask
    sizes = torch.tensor([len(group) for group in groups])
    is_text = torch.arange(int(sizes.max())) < sizes[:, None]
    rows = torch.zeros(is_text.shape, dtype=torch.long).masked_scatter(is_text, torch.arange(len(embeddings)))
    rows, is_text = to_device(rows, embeddings.device), to_device(is_text, embeddings.device)
    return embeddings[rows].flatten(1, 2), (mask[rows] & is_text[..., None]).flatten(1, 2)
