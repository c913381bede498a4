"""A head of your own; with ``PYTHONPATH=examples`` and ``--trust own_head``, a run file names ``FocalHead``."""

from typing import Any

from torch import Tensor

from synth2_lightning import VisionLanguageModule
from synth2_lightning.types import ImageTextBatch, TokenLoss


class FocalHead(VisionLanguageModule):
    """A captioner that learns less from captions that it already predicts (focal loss, arXiv 1708.02002)."""

    def __init__(self, *args: Any, gamma: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gamma = gamma

    def compute_loss(self, visual: Tensor, batch: ImageTextBatch) -> TokenLoss:
        losses = super().compute_loss(visual, batch)
        probability = (-losses.sums.detach() / losses.counts).exp()  # of a token, the geometric mean of each caption
        return losses.weighted((1 - probability) ** self.gamma)
