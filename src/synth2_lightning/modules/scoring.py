"""Synthetic pairs are scored by how well caption and tokens agree: what `synth2 predict --config score.yaml` runs."""

from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule

from synth2_lightning.interfaces import PairScorer
from synth2_lightning.types import CaptionBatch, ImageTextBatch, TokenizedImages, VQTokens


class ScoringModule(LightningModule):
    """Adds scores to pictures that are tokens already, for ``ShardWriterCallback`` to write.

    Args:
        scorer: Says how well a caption agrees with a picture.

    Example:
        >>> from synth2_lightning.testing import TinyImageTokenizer, TinyPairScorer
        >>> tokens = VQTokens(torch.full((1, 4, 1), 3), TinyImageTokenizer.codebook)
        >>> images = TokenizedImages(("7",), ("tiny",), (("a dark field", "a bright field"),), tokens, codebook_size=16)
        >>> ScoringModule(TinyPairScorer()).predict_step(images, 0).scores
        ((12.0, 3.0),)
    """

    def __init__(self, scorer: PairScorer) -> None:
        super().__init__()
        self.scorer = scorer.requires_grad_(False)

    def configure_model(self) -> None:
        """Bring the scorer's weights."""
        self.scorer.load()

    def provenance(self) -> dict[str, Any]:
        """Give what decides the scores."""
        return {"scorer_class": type(self.scorer).__name__, **self.scorer.provenance()}

    def predict_step(self, batch: TokenizedImages | CaptionBatch | ImageTextBatch, batch_idx: int) -> TokenizedImages:
        """Score every caption of every picture; older scores give way.

        Raises:
            TypeError: If the batch does not come from shards.
            ValueError: If a score is no finite number.
        """
        if not isinstance(batch, TokenizedImages):
            raise TypeError(
                f"ScoringModule was given {type(batch).__name__}; expected TokenizedImages. Use a ShardDataModule."
            )
        counts = torch.tensor([len(captions) for captions in batch.captions])
        ids = batch.tokens.ids.repeat_interleave(counts.to(self.device), dim=0)
        captions = [caption for captions in batch.captions for caption in captions]
        scores = self.scorer.score(VQTokens(ids, batch.tokens.codebook), captions)
        if not scores.isfinite().all():
            row = int(scores.isfinite().logical_not().nonzero()[0])
            raise ValueError(
                f"{type(self.scorer).__name__} gave the caption {captions[row]!r} a score of {float(scores[row])}; "
                "expected a finite number. Score in another precision (`--trainer.precision=32-true`), or with other "
                "weights."
            )
        rows = torch.split(scores.float().cpu(), counts.tolist())
        return replace(batch, scores=tuple(tuple(row.tolist()) for row in rows))
