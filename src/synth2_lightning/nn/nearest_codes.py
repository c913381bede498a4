"""Nearest codes of a codebook with one level or several."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def nearest_codes(
    features: Float[Tensor, "batch tokens dim"], codes: Float[Tensor, "levels codes dim"]
) -> Int[Tensor, "batch tokens levels"]:
    """Return the ids of the nearest codes; each level after the first quantizes the residual of the levels before.

    Example:
        >>> nearest_codes(torch.tensor([[[0.9, 0.1]]]), torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]))
        tensor([[[1]]])
    """
    ids: list[Tensor] = []
    with torch.autocast(features.device.type, enabled=False):  # half precision confuses near codes
        residual = features.float()
        for level in codes.float():
            # |x - c|^2 without |x|^2, which is constant over codes.
            ids.append((level.square().sum(-1) - 2 * residual @ level.T).argmin(-1))
            residual = residual - level[ids[-1]]
    return torch.stack(ids, dim=-1)
