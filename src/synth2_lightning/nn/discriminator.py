"""Patch discriminator for the training of image tokenizers (Isola et al., arXiv 1611.07004)."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

_NUM_GROUPS = 8


class Discriminator(nn.Module, ABC):
    """Scores how real the regions of images are."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch rows columns"]:
        """Return one score per region, above 0 where it seems real; -1 is black in the images, 1 is white."""


class PatchDiscriminator(Discriminator):
    """PatchGAN: a convolutional network with one score per patch.

    Uses group normalization. Batch statistics would differ between batches of real images and of reconstructions, and
    between processes.

    Args:
        num_channels: Channels after the first convolution; each halving doubles them, up to a factor of eight.
        num_halvings: Number of convolutions with stride 2. The receptive field of a score is 70 by 70 pixels with
            three, 34 by 34 with two.

    Raises:
        ValueError: If ``num_channels`` does not divide into groups, or ``num_halvings`` is below one.

    Example:
        >>> import torch
        >>> PatchDiscriminator(num_channels=8, num_halvings=2)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 14, 14])
    """

    def __init__(self, num_channels: int = 64, num_halvings: int = 3) -> None:
        super().__init__()
        if num_channels < 1 or num_channels % _NUM_GROUPS or num_halvings < 1:
            raise ValueError(
                f"PatchDiscriminator was given num_channels={num_channels} and num_halvings={num_halvings}; expected a "
                f"multiple of {_NUM_GROUPS}, and 1 or more."
            )
        self.smallest_size = 3 * 2**num_halvings
        widths = [num_channels * min(2**depth, 8) for depth in range(num_halvings + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for depth in range(1, num_halvings + 1):
            stride = 2 if depth < num_halvings else 1
            layers += [
                nn.Conv2d(widths[depth - 1], widths[depth], 4, stride, padding=1, bias=False),
                nn.GroupNorm(_NUM_GROUPS, widths[depth]),
                nn.LeakyReLU(0.2),
            ]
        self.main = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch rows columns"]:
        """Return one score per patch.

        Raises:
            ValueError: If the images are too small for the convolutions.
        """
        height, width = images.shape[-2:]
        if min(height, width) < self.smallest_size:
            raise ValueError(
                f"PatchDiscriminator was given images of {height} by {width} pixels; expected {self.smallest_size} "
                "or more of each. Lower num_halvings."
            )
        scores: Tensor = self.main(images)
        return scores.squeeze(1)


def hinge_loss(real: Float[Tensor, "*regions"], fake: Float[Tensor, "*regions"]) -> Float[Tensor, ""]:
    """Return the hinge loss of a discriminator (Lim and Ye, arXiv 1705.02894): zero for real > 1 and fake < -1.

    Example:
        >>> import torch
        >>> float(hinge_loss(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 1.0])))
        1.25
    """
    return relu(1 - real.float()).mean() + relu(1 + fake.float()).mean()
