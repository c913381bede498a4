"""Sampling from a language model as greedy decoding of perturbed logits."""

from jaxtyping import Float, Int
from torch import Tensor


def add_gumbel_noise(
    ids: Int[Tensor, "rows length"], scores: Float[Tensor, "rows words"]
) -> Float[Tensor, "rows words"]:
    """Return scores with Gumbel noise: their largest one is a sample from ``softmax(scores)``.

    A logits processor of transformers. With it, greedy decoding samples (the Gumbel-max trick; C. Maddison et al. 2014,
    arXiv 1411.0030), so that finished texts leave the batch here too.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[0.0, -torch.inf]])
        >>> add_gumbel_noise(torch.zeros(1, 0, dtype=torch.long), scores).argmax(1)
        tensor([0])
    """
    del ids
    # The negative logarithm of an exponential variable has a Gumbel distribution.
    noisy: Tensor = scores - scores.new_empty(scores.shape).exponential_().log()
    return noisy
