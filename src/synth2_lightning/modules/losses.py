"""Losses by source of the images."""

import torch
from torch import Tensor

from synth2_lightning.nn.transfer import to_device


def source_losses(sums: Tensor, counts: Tensor, sources: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the mean loss per target token (nats) of each source in a batch.

    Example:
        >>> source_losses(torch.tensor([2.0, 6.0]), torch.tensor([1, 2]), ("coco", "synthetic"))
        {'coco': tensor(2.), 'synthetic': tensor(3.)}
    """
    losses = {}
    for source in sorted(set(sources)):
        rows = torch.tensor([row for row, name in enumerate(sources) if name == source])
        selected = to_device(rows, sums.device)
        losses[source] = sums[selected].sum() / counts[selected].sum()
    return losses
