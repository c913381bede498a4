"""Nearest codes of a codebook with one level or several, in chunks of bounded memory."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

MAX_DISTANCES = 2**24
"""Distances computed at once: 64 MiB in float32. All at once would be 17 GB for 256 images of 1,024 tokens and 16,384
codes."""


def nearest_codes(
    features: Float[Tensor, "batch tokens dim"], codes: Float[Tensor, "levels codes dim"]
) -> Int[Tensor, "batch tokens levels"]:
    """Return the ids of the nearest codes; each level after the first quantizes the residual of the levels before.

    Example:
        >>> nearest_codes(torch.tensor([[[0.9, 0.1]]]), torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]))
        tensor([[[1]]])
    """
    with torch.autocast(features.device.type, enabled=False):  # half precision confuses near codes
        chunks = _chunk(features.float().flatten(0, 1), codes.shape[1])
        ids = torch.cat([_quantize(chunk, codes.float()) for chunk in chunks])
    return ids.view(*features.shape[:2], len(codes))


def distances_to_nearest(
    vectors: Float[Tensor, "vectors dim"], codes: Float[Tensor, "codes dim"]
) -> tuple[Float[Tensor, " vectors"], Int[Tensor, " vectors"]]:
    """Return the Euclidean distance of each vector to its nearest code, and that code's id.

    Example:
        >>> distances_to_nearest(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.0], [5.0, 0.0]]))
        (tensor([2.]), tensor([1]))
    """
    nearest = [torch.cdist(chunk, codes).min(dim=1) for chunk in _chunk(vectors, len(codes))]
    return torch.cat([chunk.values for chunk in nearest]), torch.cat([chunk.indices for chunk in nearest])


def _quantize(
    residual: Float[Tensor, "vectors dim"], codes: Float[Tensor, "levels codes dim"]
) -> Int[Tensor, "vectors levels"]:
    ids: list[Tensor] = []
    for level in codes:
        # |x - c|^2 without |x|^2, which is constant over codes.
        ids.append((level.square().sum(-1) - 2 * residual @ level.T).argmin(-1))
        residual = residual - level[ids[-1]]
    return torch.stack(ids, dim=-1)


def _chunk(vectors: Float[Tensor, "vectors dim"], num_codes: int) -> tuple[Tensor, ...]:
    chunks: tuple[Tensor, ...] = vectors.split(max(1, MAX_DISTANCES // num_codes))
    return chunks
