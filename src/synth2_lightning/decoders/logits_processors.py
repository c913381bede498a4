"""Logits processors of transformers: functions of the tokens so far and of the scores of the next ones."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from synth2_lightning.types import GenerationSettings


def repetition_penalty(settings: GenerationSettings) -> list[Any]:
    """Return the processor of the repetition penalty, in a list that is empty without one.

    It is passed as a processor and not as a setting: from the setting, transformers 5.23 counts the padding of a prompt
    as generated tokens, so that a caption in a batch would differ from the same caption alone.

    Example:
        >>> repetition_penalty(GenerationSettings())
        []
    """
    from transformers import RepetitionPenaltyLogitsProcessor

    if settings.repetition_penalty == 1:
        return []
    return [RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)]


def add_gumbel_noise(
    ids: Int[Tensor, "rows length"], scores: Float[Tensor, "rows words"]
) -> Float[Tensor, "rows words"]:
    """Return scores with Gumbel noise: their largest one is a sample from ``softmax(scores)``.

    With it, greedy decoding samples (the Gumbel-max trick; C. Maddison et al. 2014, arXiv 1411.0030), so that finished
    texts leave the batch here too.

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
