"""Feed-forward layer of a transformer."""

from torch import nn


class FeedForward(nn.Sequential):
    """LayerNorm and a two-layer GELU MLP without biases, with a hidden width of ``4 * width``."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )
