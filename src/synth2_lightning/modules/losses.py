"""Losses by source of the images."""

from torch import Tensor


def source_losses(sums: Tensor, counts: Tensor, sources: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the mean loss per target token (nats) of each source in a batch.

    Example:
        >>> import torch
        >>> source_losses(torch.tensor([2.0, 6.0]), torch.tensor([1, 2]), ("coco", "synthetic"))
        {'coco': tensor(2.), 'synthetic': tensor(3.)}
    """
    losses = {}
    for source in sorted(set(sources)):
        rows = [row for row, name in enumerate(sources) if name == source]
        losses[source] = sums[rows].sum() / counts[rows].sum()
    return losses
