"""Scoring of the captions of image tokens, for `synth2 predict --config score.yaml`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from synth2_lightning.interfaces import PairScorer
from synth2_lightning.modules.prediction import PredictionModule
from synth2_lightning.types import TokenizedImages, VQTokens


class ScoringModule(PredictionModule):
    """Scores every caption of images in shards; ``ShardWriterCallback`` writes the scores.

    Args:
        scorer: Scores how well a caption matches an image.

    Example:
        >>> from synth2_lightning.testing import TinyImageTokenizer, TinyPairScorer
        >>> from synth2_lightning.types import SampleInfo
        >>> tokens = VQTokens(torch.full((1, 4, 1), 3), TinyImageTokenizer.codebook)
        >>> captions = (("a dark field", "a bright field"),)
        >>> images = TokenizedImages((SampleInfo("7", "tiny"),), captions, tokens, codebook_size=16)
        >>> ScoringModule(TinyPairScorer()).predict_step(images, 0).scores
        ((12.0, 3.0),)
    """

    def __init__(self, scorer: PairScorer) -> None:
        super().__init__()
        self.scorer = scorer.requires_grad_(False)

    def provenance(self) -> dict[str, Any]:
        """Return the settings that determine the scores."""
        return {"scorer_class": type(self.scorer).__name__, **self.scorer.provenance()}

    def predict_step(self, batch: object, batch_idx: int) -> TokenizedImages:
        """Return the batch with a score of every caption of every image, in place of earlier scores."""
        batch = self.expect(batch, TokenizedImages, "ShardDataModule")
        counts = torch.tensor([len(captions) for captions in batch.captions])
        ids = batch.tokens.ids.repeat_interleave(counts.to(self.device), dim=0)
        captions = [caption for captions in batch.captions for caption in captions]
        if not captions:
            return replace(batch, scores=((),) * len(batch))
        scores = score_pairs(self.scorer, VQTokens(ids, batch.tokens.codebook), captions)
        rows = torch.split(scores, counts.tolist())
        return replace(batch, scores=tuple(tuple(row.tolist()) for row in rows))


def score_pairs(scorer: PairScorer, tokens: VQTokens, captions: Sequence[str]) -> Float[Tensor, " pairs"]:
    """Return the scores of images and captions on the CPU.

    Raises:
        ValueError: If a score is not finite.
    """
    scores = scorer.score(tokens, captions).float().cpu()
    if not scores.isfinite().all():
        row = int(scores.isfinite().logical_not().nonzero()[0])
        raise ValueError(
            f"{type(scorer).__name__} returned for the caption {captions[row]!r} the score {float(scores[row])}; "
            "expected a finite number. Use another precision (--trainer.precision=32-true) or other weights."
        )
    return scores
