"""Beam search over a batch of texts; finished texts leave the batch.

The texts are those of the beam search of transformers with ``early_stopping=False``, and of its greedy decoding for one
beam. Three differences save time and change nothing but rounding: the prompt is processed once per text and not once
per beam, finished texts leave the batch, and only the best finished beam of each text is kept.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from synth2_lightning.compat.transformers import find_cache, update_model_kwargs
from synth2_lightning.types import GenerationSettings

_KWARGS_BY_ROW = ("attention_mask", "position_ids")


class Beams:
    """The running beams of several texts, and the best finished beam of each.

    A beam's score is the log-likelihood of its tokens. A finished beam, its end-of-text token included, is ranked by
    its score divided by ``length ** length_penalty``. A text is finished when its best running beam, ranked as if it
    ended now, is no better than the worst of ``num_beams`` finished ones; with one beam, as soon as it ends.

    Args:
        num_texts: Number of texts.
        settings: Number of beams, maximum length and length penalty.
        eos_id: Id of the end-of-text token.
        device: Device of the scores.

    Attributes:
        texts: Indices of the unfinished texts.
        tokens: Token ids of their running beams.
        scores: Log-likelihoods of these beams.

    Example:
        >>> beams = Beams(1, GenerationSettings(num_beams=2, max_new_tokens=2), eos_id=0, device=torch.device("cpu"))
        >>> _ = beams.advance(torch.tensor([[0.1, 0.3, 0.6]]).log())
        >>> beams.tokens.tolist()
        [[[2], [1]]]
        >>> _ = beams.advance(torch.tensor([[0.2, 0.4, 0.4], [0.9, 0.1, 0.0]]).log())
        >>> len(beams.texts), beams.best_sequences()
        (0, tensor([[1, 0]]))
    """

    texts: Int[Tensor, " texts"]
    tokens: Int[Tensor, "texts beams length"]
    scores: Float[Tensor, "texts beams"]

    def __init__(self, num_texts: int, settings: GenerationSettings, eos_id: int, device: torch.device) -> None:
        self.settings = settings
        self.eos_id = eos_id
        self.texts = torch.arange(num_texts, device=device)
        self.tokens = torch.empty(num_texts, 1, 0, dtype=torch.long, device=device)
        self.scores = torch.zeros(num_texts, 1, device=device)
        self._finished_ranks = torch.full((num_texts, settings.num_beams), -torch.inf, device=device)
        self._best: list[Tensor] = [self.texts[:0]] * num_texts

    def advance(self, log_probabilities: Float[Tensor, "rows words"]) -> Int[Tensor, " rows_left"]:
        """Append the next token to each beam.

        Args:
            log_probabilities: Of the next token; one row per beam of each unfinished text.

        Returns:
            For each running beam, the index of the row that it continues.
        """
        num_texts, num_before, length = self.tokens.shape
        width = self.settings.num_beams
        num_words = log_probabilities.shape[1]
        candidates = (self.scores.flatten()[:, None] + log_probabilities).view(num_texts, -1)
        # Twice the number of beams, so that enough are left if the most likely candidates end.
        scores, indices = candidates.topk(min(2 * width, candidates.shape[1]))
        parents = indices // num_words
        tokens = torch.cat(
            [self.tokens.gather(1, parents[..., None].expand(-1, -1, length)), indices[..., None] % num_words], dim=2
        )
        length += 1
        ends = (tokens[..., -1] == self.eos_id) | (length == self.settings.max_new_tokens)
        per_length = length**self.settings.length_penalty
        self._add_finished(tokens[:, :width], (scores[:, :width] / per_length).where(ends[:, :width], -torch.inf))
        # Candidates that ended sort last; until the last step there are enough others.
        scores, order = scores.where(~ends, -torch.inf).topk(min(width, scores.shape[1]))
        is_running = self._is_running(scores[:, 0] / per_length, length)
        order = order[is_running]
        rows = parents[is_running].gather(1, order) + num_before * is_running.nonzero()
        self.texts, self._finished_ranks = self.texts[is_running], self._finished_ranks[is_running]
        self.tokens = tokens[is_running].gather(1, order[..., None].expand(-1, -1, length))
        self.scores = scores[is_running]
        return rows.flatten()

    def best_sequences(self) -> Int[Tensor, "texts length"]:
        """Return the best finished beam of each text, padded with the end-of-text token."""
        return pad_sequence(self._best, batch_first=True, padding_value=self.eos_id)

    def _add_finished(self, tokens: Tensor, ranks: Tensor) -> None:
        best, indices = ranks.max(1)
        for row in (best > self._finished_ranks.max(1).values).nonzero().flatten().tolist():
            self._best[self.texts[row]] = tokens[row, indices[row]]
        self._finished_ranks = torch.cat([self._finished_ranks, ranks], dim=1).topk(self.settings.num_beams).values

    def _is_running(self, ranks: Float[Tensor, " texts"], length: int) -> Bool[Tensor, " texts"]:
        return (ranks > self._finished_ranks.min(1).values) & (length < self.settings.max_new_tokens)


def beam_search(
    model: Any,
    input_ids: Int[Tensor, "texts 0"],
    logits_processor: Callable[[Tensor, Tensor], Tensor],
    *,
    settings: GenerationSettings,
    eos_id: int,
    select_images: Callable[[Int[Tensor, " texts"]], None],
    synced: bool,
    generation_config: Any = None,
    stopping_criteria: Any = None,
    **model_kwargs: Any,
) -> Int[Tensor, "texts length"]:
    """Generate texts, as a ``custom_generate`` of transformers, whose ``generate`` prepares the arguments.

    Args:
        model: A causal language model of transformers.
        input_ids: Of length 0: the prompt is in the embeddings.
        logits_processor: Modifies the scores of the next tokens.
        settings: Number of beams, maximum length and length penalty.
        eos_id: Id of the end-of-text token.
        select_images: Called with the indices of the unfinished texts, among those of the last call of the model, when
            a text is finished.
        synced: Whether to call the model as often as the other ranks do.
        generation_config: Not used. It has one beam, because ``generate`` prepares one row per text.
        stopping_criteria: Not used.
        **model_kwargs: Arguments of the model.
    """
    del generation_config, stopping_criteria
    device = input_ids.device
    beams = Beams(len(input_ids), settings, eos_id, device)
    ids = input_ids
    inputs = model.prepare_inputs_for_generation(ids, is_first_iteration=True, **model_kwargs)
    model_kwargs.pop("inputs_embeds", None)
    while True:
        outputs = model(**inputs, return_dict=True)
        model_kwargs = update_model_kwargs(model, outputs, model_kwargs)
        if len(beams.texts):
            scores = outputs.logits[:, -1].float().log_softmax(-1)
            before = beams.texts
            rows = beams.advance(logits_processor(ids, scores))
            if len(beams.texts):
                if len(beams.texts) < len(before):
                    select_images(torch.isin(before, beams.texts).nonzero().squeeze(1))
                ids = beams.tokens.flatten(0, 1)
                find_cache(model_kwargs).reorder_cache(rows)
                for name in _KWARGS_BY_ROW:
                    if model_kwargs.get(name) is not None:
                        model_kwargs[name] = model_kwargs[name][rows]
        if not _is_any_unfinished(len(beams.texts), synced, device):
            return beams.best_sequences()
        inputs = model.prepare_inputs_for_generation(ids, next_sequence_length=1, **model_kwargs)


def _is_any_unfinished(num_texts: int, synced: bool, device: torch.device) -> bool:
    if not synced:
        return num_texts > 0
    over_ranks = torch.tensor(num_texts, device=device)
    dist.all_reduce(over_ranks)
    return bool(over_ranks)
