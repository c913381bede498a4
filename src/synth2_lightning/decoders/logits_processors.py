"""Logits processors of transformers: functions of the tokens so far and of the scores of the next ones."""

from functools import partial
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from synth2_lightning.types import GenerationSettings

NO_REPETITION_SETTINGS = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
"""Settings for transformers beside :func:`repetition_processors`; for None it takes those published with a model."""


def repetition_processors(settings: GenerationSettings, num_prompt: int = 0) -> list[Any]:
    """Return the processors of the repetition penalty and of repeated n-grams; without both, none.

    They are passed as processors and not as settings: from settings, transformers counts the tokens of a prompt, and
    some versions its padding, as generated tokens.

    Args:
        settings: Decoding settings.
        num_prompt: Number of tokens before the generated ones, with padding.

    Example:
        >>> repetition_processors(GenerationSettings())
        []
    """
    from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

    processors: list[Any] = []
    if settings.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    return [partial(_process_generated, processor, num_prompt) for processor in processors]


def _process_generated(processor: Any, num_prompt: int, ids: Tensor, scores: Tensor) -> Tensor:
    processed: Tensor = processor(ids[:, num_prompt:], scores)
    return processed


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
