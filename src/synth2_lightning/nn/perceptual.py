"""How different two pictures look, by the features of a frozen network."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


def perceptual_distance(
    features: Sequence[Float[Tensor, "batch _ _ _"]], others: Sequence[Float[Tensor, "batch _ _ _"]]
) -> Float[Tensor, ""]:
    """Squared distance of feature vectors of length one, averaged over pictures, positions and layers; 0 to 4.

    As LPIPS (Zhang et al., arXiv 1801.03924, equation 1) without its learnt weights of channels, so it is twice the
    cosine distance; and with the mean over layers in place of their sum, so the value hardly depends on how many.

    Args:
        features: One feature map ``(batch, dim, height, width)`` per layer.
        others: The same of the other pictures.

    Example:
        >>> right, up = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])
        >>> float(perceptual_distance([right.view(1, 2, 1, 1)], [up.view(1, 2, 1, 1)]))
        2.0
    """
    distances = [
        (normalize(one.float(), dim=1) - normalize(other.float(), dim=1)).square().sum(1).mean()
        for one, other in zip(features, others, strict=True)
    ]
    return torch.stack(distances).mean()
