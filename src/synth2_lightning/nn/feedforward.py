"""The feed-forward layer of a transformer."""

from torch import nn


class FeedForward(nn.Sequential):
    """LayerNorm, then two linear maps with GELU between them; without biases, four times as wide inside.

    Args:
        width: Width of what comes in and goes out.

    Example:
        >>> import torch
        >>> FeedForward(8)(torch.randn(2, 3, 8)).shape
        torch.Size([2, 3, 8])
    """

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )
