"""Perceptual distance of images in the feature space of a frozen network."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from synth2_lightning.interfaces import FrozenModule


class FeatureExtractor(FrozenModule, ABC):
    """Frozen network whose feature maps at several depths measure the similarity of images.

    Unlike an :class:`ImageEncoder`, it passes gradients to the images.
    """

    @abstractmethod
    def extract(self, images: Float[Tensor, "batch 3 height width"]) -> list[Float[Tensor, "batch _ _ _"]]:
        """Return one feature map ``(batch, dim, height, width)`` per layer; -1 is black in the images, 1 is white."""


def perceptual_distance(
    features: Sequence[Float[Tensor, "batch _ _ _"]], others: Sequence[Float[Tensor, "batch _ _ _"]]
) -> Float[Tensor, ""]:
    """Return the squared distance of unit feature vectors, averaged over images, positions and layers; 0 to 4.

    As LPIPS (Zhang et al., arXiv 1801.03924, equation 1) without learned channel weights, hence twice the cosine
    distance, and averaged instead of summed over layers, so that the value hardly depends on the number of layers.

    Args:
        features: One feature map ``(batch, dim, height, width)`` per layer.
        others: Those of the other images.

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
