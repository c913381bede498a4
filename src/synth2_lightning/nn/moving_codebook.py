"""Codebook trained by exponential moving averages (van den Oord et al., arXiv 1711.00937, appendix A.1)."""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn
from torch.nn.functional import normalize

from synth2_lightning.nn.nearest_codes import distances_to_nearest


class MovingCodebook(nn.Module):
    """Vector quantizer whose codes are moving averages of their assigned vectors. Dead codes are re-initialized.

    Codes and vectors are normalized to a sphere (Yu et al., arXiv 2110.04627, section 3.2). Otherwise one simple
    property, such as brightness, can take up nearly all of the codes' variance. The code nearest to a normalized vector
    is also the nearest to the vector itself, so a lookup needs no normalization.

    Codes are initialized after ``num_free_batches`` training batches; until then vectors pass unquantized. Vectors of
    an untrained encoder vary in few directions. Codes initialized from them can distinguish no others, and the encoder
    gets no gradient for others.

    Codes are initialized and re-initialized to vectors of the current batch, sampled with probability proportional to
    the squared distance to the nearest code, as in k-means++ (Arthur and Vassilvitskii, 2007). Most positions of an
    image are background, and uniform sampling would give mostly copies of it. With several processes, the averages are
    reduced over all of them, and sampled vectors are broadcast from the first.

    ``vector_quantize_pytorch.VectorQuantize`` is not a replacement. It initializes by k-means or at random and samples
    the replacements of dead codes uniformly, has no unquantized phase, and does not count replacements; its private
    methods would have to be overridden for the first two.

    Args:
        num_codes: Number of codes.
        dim: Width of a code.
        decay: Weight of the old average in each step, 0 to 1.
        revival_threshold: A code is re-initialized when its average number of assigned vectors per step falls below.
        num_free_batches: Training batches before the codes are initialized.

    Attributes:
        num_revived: Number of re-initialized codes so far, in this process.

    Raises:
        ValueError: If the decay is outside 0 to 1, or ``num_free_batches`` is negative.

    Example:
        >>> codebook = MovingCodebook(num_codes=4, dim=2)
        >>> codes, ids = codebook(torch.randn(8, 2))
        >>> codes.shape, ids.shape
        (torch.Size([8, 2]), torch.Size([8]))
    """

    embed: Tensor
    embed_avg: Tensor
    cluster_size: Tensor
    initted: Tensor
    num_batches: Tensor

    def __init__(
        self,
        num_codes: int,
        dim: int,
        decay: float = 0.97,
        revival_threshold: float = 0.02,
        num_free_batches: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"MovingCodebook.decay is {decay}; expected 0 or more, and less than 1.")
        if num_free_batches < 0:
            raise ValueError(f"MovingCodebook.num_free_batches is {num_free_batches}; expected 0 or more.")
        self.decay = decay
        self.num_free_batches = num_free_batches
        self.revival_threshold = revival_threshold
        self.num_revived = 0
        self.register_buffer("embed", torch.zeros(num_codes, dim))
        self.register_buffer("embed_avg", torch.zeros(num_codes, dim))
        self.register_buffer("cluster_size", torch.ones(num_codes))
        self.register_buffer("initted", torch.tensor(False))
        self.register_buffer("num_batches", torch.tensor(0))
        # Of `initted` on the host, so that a step does not read it from the device; None after loading a state.
        self._is_started: bool | None = None
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def forward(
        self, inputs: Float[Tensor, "vectors dim"]
    ) -> tuple[Float[Tensor, "vectors dim"], Int[Tensor, " vectors"]]:
        """Replace vectors by their nearest codes, with a straight-through gradient.

        Returns:
            Codes and their ids. Before the codes are initialized: the normalized vectors, and zeros.
        """
        inputs = spherical(inputs)
        values = inputs.detach().float()
        if self._is_started is None:
            self._is_started = bool(self.initted)
        if self.training and not self._is_started:
            self.num_batches += 1
            if self.num_batches > self.num_free_batches:
                self._start(values)
        if not self._is_started:
            return inputs, torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)
        distances, ids = distances_to_nearest(values, self.embed)
        codes = self.embed[ids].to(inputs.dtype)
        if self.training:
            self._follow(values, ids)
            self._revive(values, distances)
        return inputs + (codes - inputs).detach(), ids

    @torch.no_grad()
    def _start(self, values: Float[Tensor, "vectors dim"]) -> None:
        vectors = values[:1]
        while len(vectors) < len(self.embed):
            distances, _ = distances_to_nearest(values, vectors)
            num_new = min(len(vectors), len(self.embed) - len(vectors))  # doubling needs few rounds
            vectors = torch.cat([vectors, _sample_far(values, distances, num_new)])
        self.embed.copy_(_of_first_process(vectors))
        self.embed_avg.copy_(self.embed)
        self.initted.fill_(True)
        self._is_started = True

    @torch.no_grad()
    def _follow(self, values: Float[Tensor, "vectors dim"], ids: Int[Tensor, " vectors"]) -> None:
        counts = torch.zeros_like(self.cluster_size).index_add_(0, ids, torch.ones_like(values[:, 0]))
        sums = torch.zeros_like(self.embed_avg).index_add_(0, ids, values)
        if distributed.is_initialized():
            both = torch.cat([counts[:, None], sums], dim=1)
            distributed.all_reduce(both)
            counts, sums = both[:, 0], both[:, 1:]
        self.cluster_size.lerp_(counts, 1 - self.decay)
        self.embed_avg.lerp_(sums, 1 - self.decay)
        self.embed.copy_(spherical(self.embed_avg))

    @torch.no_grad()
    def _revive(self, values: Float[Tensor, "vectors dim"], distances: Float[Tensor, " vectors"]) -> None:
        unused = self.cluster_size < self.revival_threshold
        num_unused = int(unused.sum())
        if num_unused == 0:
            return
        self.num_revived += num_unused
        self.embed[unused] = _of_first_process(_sample_far(values, distances, num_unused))
        cluster_size = 2 * self.revival_threshold  # several steps until it can fall below the threshold again
        self.cluster_size[unused] = cluster_size
        self.embed_avg[unused] = self.embed[unused] * cluster_size


def _forget(codebook: MovingCodebook, _: Any) -> None:
    codebook._is_started = None


def spherical(vectors: Float[Tensor, "vectors dim"]) -> Float[Tensor, "vectors dim"]:
    """Normalize vectors to a mean square of one over channels."""
    return normalize(vectors, dim=-1) * math.sqrt(vectors.shape[-1])


def _sample_far(
    values: Float[Tensor, "vectors dim"], distances: Float[Tensor, " vectors"], num_samples: int
) -> Float[Tensor, "samples dim"]:
    # Uniform where every vector equals a code. NaN is left to the check of the loss: multinomial would raise first.
    weights = distances.square().nan_to_num().clamp_min(1e-12)
    return values[weights.multinomial(num_samples, replacement=num_samples > len(values))]


def _of_first_process(vectors: Float[Tensor, "samples dim"]) -> Float[Tensor, "samples dim"]:
    if distributed.is_initialized():
        distributed.broadcast(vectors, src=0)
    return vectors
