"""Beam search over many texts at once, where a text that is finished leaves the batch.

The texts are those of transformers' own beam search with ``early_stopping=False``, and of its greedy decoding for one
beam. Three things make it quicker than that, and change nothing but rounding: what stands before a text is read once
and not once per beam; a finished text costs nothing while others go on; and of finished beams only the best is kept.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from synth2_lightning.types import GenerationSettings

_ROW_BY_ROW = ("attention_mask", "position_ids")


class Beams:
    """The beams of several texts: which ones go on, and the best text that ended so far.

    A beam's score is the log-likelihood of its tokens; a text that ended, the end included, is ranked by its score over
    ``length ** length_penalty``. A text is finished when the best of its running beams, ranked as if it ended now, is
    no better than the worst of ``num_beams`` ended ones; with one beam, as soon as it ends.

    Args:
        num_texts: How many texts.
        settings: Width, longest length and length penalty.
        end: Id of the token that ends a text.
        device: Where the scores are.

    Attributes:
        texts: Numbers of the texts that are not finished.
        tokens: What each beam of these holds.

    Example:
        >>> beams = Beams(1, GenerationSettings(num_beams=2, max_new_tokens=2), end=0, device=torch.device("cpu"))
        >>> _ = beams.advance(torch.tensor([[0.1, 0.3, 0.6]]).log())
        >>> beams.tokens.tolist()
        [[[2], [1]]]
        >>> _ = beams.advance(torch.tensor([[0.2, 0.4, 0.4], [0.9, 0.1, 0.0]]).log())
        >>> len(beams.texts), beams.answers()
        (0, tensor([[1, 0]]))
    """

    texts: Int[Tensor, " texts"]
    tokens: Int[Tensor, "texts beams length"]
    scores: Float[Tensor, "texts beams"]

    def __init__(self, num_texts: int, settings: GenerationSettings, end: int, device: torch.device) -> None:
        self.settings = settings
        self.end = end
        self.texts = torch.arange(num_texts, device=device)
        self.tokens = torch.empty(num_texts, 1, 0, dtype=torch.long, device=device)
        self.scores = torch.zeros(num_texts, 1, device=device)
        self._ended = torch.full((num_texts, settings.num_beams), -torch.inf, device=device)
        self._best: list[Tensor] = [self.texts[:0]] * num_texts

    def advance(self, log_probabilities: Float[Tensor, "rows words"]) -> Int[Tensor, " rows_left"]:
        """Take the next token of every beam.

        Args:
            log_probabilities: Of the next token; one row per beam of every text that is not finished.

        Returns:
            Which of these rows each beam that is left goes on from.
        """
        num_texts, num_before, length = self.tokens.shape
        width = self.settings.num_beams
        num_words = log_probabilities.shape[1]
        reached = (self.scores.flatten()[:, None] + log_probabilities).view(num_texts, -1)
        # Twice as many, so that enough are left if the likeliest ones end.
        scores, places = reached.topk(min(2 * width, reached.shape[1]))
        sources = places // num_words
        tokens = torch.cat(
            [self.tokens.gather(1, sources[..., None].expand(-1, -1, length)), places[..., None] % num_words], dim=2
        )
        length += 1
        ends = (tokens[..., -1] == self.end) | (length == self.settings.max_new_tokens)
        per_length = length**self.settings.length_penalty
        self._keep_ended(tokens[:, :width], (scores[:, :width] / per_length).where(ends[:, :width], -torch.inf))
        # Those that ended would come last, and there are enough of the others until the last step.
        scores, order = scores.where(~ends, -torch.inf).topk(min(width, scores.shape[1]))
        going = self._may_improve(scores[:, 0] / per_length, length)
        order = order[going]
        rows = sources[going].gather(1, order) + num_before * going.nonzero()
        self.texts, self._ended = self.texts[going], self._ended[going]
        self.tokens = tokens[going].gather(1, order[..., None].expand(-1, -1, length))
        self.scores = scores[going]
        return rows.flatten()

    def answers(self) -> Int[Tensor, "texts length"]:
        """Give the best text of each, filled up with ends."""
        return pad_sequence(self._best, batch_first=True, padding_value=self.end)

    def _keep_ended(self, tokens: Tensor, ranks: Tensor) -> None:
        best, places = ranks.max(1)
        for row in (best > self._ended.max(1).values).nonzero().flatten().tolist():
            self._best[self.texts[row]] = tokens[row, places[row]]
        self._ended = torch.cat([self._ended, ranks], dim=1).topk(self.settings.num_beams).values

    def _may_improve(self, ranks: Float[Tensor, " texts"], length: int) -> Bool[Tensor, " texts"]:
        going = ranks > self._ended.min(1).values
        if self.settings.num_beams == 1:
            going = self._ended.isinf().squeeze(1)
        return going & (length < self.settings.max_new_tokens)


def beam_search(
    model: Any,
    input_ids: Int[Tensor, "texts 0"],
    logits_processor: Callable[[Tensor, Tensor], Tensor],
    *,
    settings: GenerationSettings,
    end: int,
    keep_pictures: Callable[[Int[Tensor, " texts"]], None],
    synced: bool,
    generation_config: Any = None,
    stopping_criteria: Any = None,
    **model_kwargs: Any,
) -> Int[Tensor, "texts length"]:
    """Write texts; a ``custom_generate`` of transformers, whose ``generate`` prepares the rest.

    Args:
        model: A causal language model of transformers.
        input_ids: Of no length: what stands before the texts comes as embeddings.
        logits_processor: Changes the scores of next tokens.
        settings: How to search.
        end: Id of the token that ends a text.
        keep_pictures: Told which of the texts that the model was last called for are left.
        synced: Whether to call the model as often as the other ranks do.
        generation_config: Not used: of one beam, for what ``generate`` prepares.
        stopping_criteria: Not used.
        **model_kwargs: What the model is called with.
    """
    del generation_config, stopping_criteria
    device = input_ids.device
    beams = Beams(len(input_ids), settings, end, device)
    ids = input_ids
    outputs = model._prefill(ids, model.generation_config, model_kwargs)
    model_kwargs.pop("inputs_embeds", None)
    while True:
        model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs)
        if len(beams.texts):
            scores = outputs.logits[:, -1].float()
            if settings.num_beams > 1:
                scores = scores.log_softmax(-1)
            before = beams.texts
            rows = beams.advance(logits_processor(ids, scores))
            if len(beams.texts):
                if len(beams.texts) < len(before):
                    keep_pictures(torch.isin(before, beams.texts).nonzero().squeeze(1))
                ids = beams.tokens.flatten(0, 1)
                model_kwargs["cache"].reorder_cache(rows)
                for name in _ROW_BY_ROW:
                    if model_kwargs.get(name) is not None:
                        model_kwargs[name] = model_kwargs[name][rows]
        if not model._has_unfinished_sequences(not len(beams.texts), synced, device):
            return beams.answers()
        inputs = model.prepare_inputs_for_generation(ids, next_sequence_length=1, **model_kwargs)
        outputs = model(**inputs, return_dict=True)
