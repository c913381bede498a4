"""Embeddings of texts that were encoded before, and encoding that does not depend on other texts."""

from collections.abc import Callable, Sequence

from jaxtyping import Bool, Float, Int
from torch import Tensor

TokenEmbeddings = Float[Tensor, "_ dim"]

_NUM_ROWS = 16  # of a call of the network
_WIDTH = 8  # a multiple of it is the length of the rows


class TextCache:
    """Stores the token embeddings of texts, up to a number of bytes; later texts are encoded in each call.

    Nothing is replaced: for texts in random order, as in training, the first ones are as good as any others, while
    replacing the oldest would find none if an epoch does not fit.

    Args:
        max_bytes: Memory of the embeddings, on the device of the encoder; 0 stores none.

    Example:
        >>> import torch
        >>> cache = TextCache(max_bytes=100)
        >>> encode = lambda texts: [torch.ones(len(text.split()), 2) for text in texts]
        >>> [len(rows) for rows in cache.look_up(["a circle", "a red circle", "a circle"], encode)]
        [2, 3, 2]
        >>> cache.num_bytes  # of 5 tokens, 2 numbers each
        40
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._embeddings: dict[str, TokenEmbeddings] = {}

    def look_up(
        self, texts: Sequence[str], encode: Callable[[list[str]], list[TokenEmbeddings]]
    ) -> list[TokenEmbeddings]:
        """Return the token embeddings of each text.

        Args:
            texts: The texts.
            encode: Returns the token embeddings of texts that are not stored, called at most once, without repeats.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._embeddings]
        encoded = dict(zip(new, encode(new), strict=True)) if new else {}
        rows = [encoded[text] if text in encoded else self._embeddings[text] for text in texts]
        for text, row in encoded.items():
            size = row.numel() * row.element_size()
            if self.num_bytes + size <= self.max_bytes:
                self._embeddings[text] = row
                self.num_bytes += size
        return rows


def encode_independently(
    ids: Int[Tensor, "texts length"],
    mask: Bool[Tensor, "texts length"],
    max_length: int,
    network: Callable[[Tensor, Tensor], Float[Tensor, "rows width dim"]],
) -> list[TokenEmbeddings]:
    """Return the token embeddings of each text, to the last bit independent of the other texts.

    Otherwise a run that resumes with an empty cache would differ by rounding: kernels and their order of summation
    depend on the shapes, and on whether there is padding. So the network gets rows of a fixed number, of a length that
    follows from the text, and one without text, so that there always is padding.

    Args:
        ids: Token ids on the host, padded on the right.
        mask: False at padding.
        max_length: Maximum length of a row.
        network: Returns the embeddings of ids, given a mask.

    Example:
        >>> import torch
        >>> encode_independently(
        ...     torch.tensor([[5, 6], [7, 0]]),
        ...     torch.tensor([[True, True], [True, False]]),
        ...     max_length=64,
        ...     network=lambda ids, mask: ids[..., None] * mask[..., None].float(),
        ... )
        [tensor([[5.],
                [6.]]), tensor([[7.]])]
    """
    lengths = mask.sum(1)
    widths = (lengths + _WIDTH - 1).div(_WIDTH, rounding_mode="floor").mul(_WIDTH).clamp(max=max_length)
    found: dict[int, TokenEmbeddings] = {}
    for width in widths.unique().tolist():
        for block in (widths == width).nonzero().squeeze(1).split(_NUM_ROWS - 1):
            block_ids, block_mask = ids.new_zeros(_NUM_ROWS, width), mask.new_zeros(_NUM_ROWS, width)
            block_ids[: len(block), : ids.shape[1]] = ids[block, :width]
            block_mask[: len(block), : ids.shape[1]] = mask[block, :width]
            block_mask[len(block) :, 0] = True
            for row, states in zip(block.tolist(), network(block_ids, block_mask), strict=False):
                # A copy, because a slice would keep the padding in memory.
                found[row] = states[: int(lengths[row])].clone()
    return [found[row] for row in range(len(ids))]
