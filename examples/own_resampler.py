"""A resampler of your own; with ``PYTHONPATH=examples`` and ``--trust own_resampler``, a run file names it."""

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d

from synth2_lightning.interfaces import Resampler


class PoolingResampler(Resampler):
    """Means of neighboring image embeddings, projected to the width of the decoder."""

    def __init__(self, num_latents: int = 8) -> None:
        super().__init__()
        self.num_latents = num_latents

    def _build(self, input_dim: int, output_dim: int) -> None:
        self.project = nn.Linear(input_dim, output_dim)

    def forward(self, embeddings: Tensor) -> Tensor:
        pooled = adaptive_avg_pool1d(embeddings.transpose(1, 2), self.num_latents).transpose(1, 2)
        return self.project(pooled)
