"""A codebook that follows the vectors that it quantises (van den Oord et al., arXiv 1711.00937, appendix A.1)."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn
from torch.nn.functional import normalize


class MovingCodebook(nn.Module):
    """Each code is the moving average of the vectors that chose it; codes that nobody chooses start again elsewhere.

    Codes and vectors lie on a sphere (Yu et al., arXiv 2110.04627, section 3.2): otherwise one property that is easy
    to tell, such as brightness, may take nearly all of the codes' variance. The code that is nearest on the sphere is
    nearest off it, too, so who looks codes up need not know.

    Vectors may pass as they are for some batches first. A codebook that starts too early sees vectors of an encoder
    that has learnt next to nothing; what few directions they differ in is all that codes can tell from then on, and
    the encoder has no reason to find more.

    The codes start at vectors of one batch, and start again at vectors of the present one. Either way a
    vector is drawn with a probability in proportion to its squared distance to the nearest code, as in k-means++
    (Arthur and Vassilvitskii, 2007): most positions of a picture are background, and codes that were drawn evenly
    would nearly all be copies of it. Over several processes the averages are shared, and the draws are those of
    the first process.

    Args:
        num_codes: Number of codes.
        dim: Width of a code.
        decay: Share of the old average that is kept in each step, 0 to 1.
        revival_threshold: Codes that are chosen less often than this in a step, on average, start again.
        num_free_batches: Training batches that pass before the codes start.

    Attributes:
        num_revived: Codes that started again so far, in this process.

    Raises:
        ValueError: If the decay is outside 0 to 1, or ``num_free_batches`` is negative.

    Example:
        >>> codebook = MovingCodebook(num_codes=4, dim=2)
        >>> codes, ids = codebook(torch.randn(8, 2))
        >>> codes.shape, ids.shape
        (torch.Size([8, 2]), torch.Size([8]))
    """

    vectors: Tensor
    sums: Tensor
    counts: Tensor
    has_started: Tensor
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
        self.register_buffer("vectors", torch.zeros(num_codes, dim))
        self.register_buffer("sums", torch.zeros(num_codes, dim))
        self.register_buffer("counts", torch.ones(num_codes))
        self.register_buffer("has_started", torch.tensor(False))
        self.register_buffer("num_batches", torch.tensor(0))

    def forward(
        self, inputs: Float[Tensor, "vectors dim"]
    ) -> tuple[Float[Tensor, "vectors dim"], Int[Tensor, " vectors"]]:
        """Replace vectors by their nearest codes; the gradient passes as if they had not been replaced.

        Returns:
            The codes, and their ids. Before the codes start: the vectors on the sphere, and zeros.
        """
        inputs = spherical(inputs)
        values = inputs.detach().float()
        if self.training and not self.has_started:
            self.num_batches += 1
            if self.num_batches > self.num_free_batches:
                self._start(values)
        if not self.has_started:
            return inputs, torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)
        distances, ids = torch.cdist(values, self.vectors).min(dim=1)
        codes = self.vectors[ids].to(inputs.dtype)
        if self.training:
            self._follow(values, ids)
            self._revive(values, distances)
        return inputs + (codes - inputs).detach(), ids

    @torch.no_grad()
    def _start(self, values: Float[Tensor, "vectors dim"]) -> None:
        vectors = values[:1]
        while len(vectors) < len(self.vectors):
            distances = torch.cdist(values, vectors).amin(dim=1)
            num_new = min(len(vectors), len(self.vectors) - len(vectors))  # double, so that few rounds are needed
            vectors = torch.cat([vectors, _draw_far(values, distances, num_new)])
        self.vectors.copy_(_of_first_process(vectors))
        self.sums.copy_(self.vectors)
        self.has_started.fill_(True)

    @torch.no_grad()
    def _follow(self, values: Float[Tensor, "vectors dim"], ids: Int[Tensor, " vectors"]) -> None:
        counts = torch.zeros_like(self.counts).index_add_(0, ids, torch.ones_like(values[:, 0]))
        sums = torch.zeros_like(self.sums).index_add_(0, ids, values)
        if distributed.is_initialized():
            distributed.all_reduce(counts)
            distributed.all_reduce(sums)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        self.vectors.copy_(spherical(self.sums))

    @torch.no_grad()
    def _revive(self, values: Float[Tensor, "vectors dim"], distances: Float[Tensor, " vectors"]) -> None:
        unused = self.counts < self.revival_threshold
        num_unused = int(unused.sum())
        if num_unused == 0:
            return
        self.num_revived += num_unused
        self.vectors[unused] = _of_first_process(_draw_far(values, distances, num_unused))
        self.counts[unused] = 2 * self.revival_threshold  # time to be chosen, before it is judged again
        self.sums[unused] = self.vectors[unused] * 2 * self.revival_threshold


def spherical(vectors: Float[Tensor, "vectors dim"]) -> Float[Tensor, "vectors dim"]:
    """Bring vectors to the sphere on which channels have a mean square of one."""
    return normalize(vectors, dim=-1) * math.sqrt(vectors.shape[-1])


def _draw_far(
    values: Float[Tensor, "vectors dim"], distances: Float[Tensor, " vectors"], num_drawn: int
) -> Float[Tensor, "drawn dim"]:
    # Where every vector is a code already, all are drawn alike.
    weights = distances.square().clamp_min(1e-12)
    return values[weights.multinomial(num_drawn, replacement=num_drawn > len(values))]


def _of_first_process(vectors: Float[Tensor, "drawn dim"]) -> Float[Tensor, "drawn dim"]:
    if distributed.is_initialized():
        distributed.broadcast(vectors, src=0)
    return vectors
