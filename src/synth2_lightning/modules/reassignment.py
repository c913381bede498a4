"""Reassignment of captions to the images of a pool that agree with them best (SynC, Kim et al., arXiv 2507.18616)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from synth2_lightning.interfaces import PairScorer, TextEncoder
from synth2_lightning.io.fingerprints import fingerprint_weights, hash_record
from synth2_lightning.modules.caption_index import CaptionIndex
from synth2_lightning.modules.prediction import PredictionModule
from synth2_lightning.modules.scoring import score_pairs
from synth2_lightning.nn.pooling import embed_sentences
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.types import TokenizedImages, VQTokens


class ReassignmentModule(PredictionModule):
    """Replaces the images of captions in shards by those of a pool whose own captions are the most similar.

    ``ShardWriterCallback`` writes the result.

    A generated image may lack what its caption says, and another image of the pool may have it. SynC (Kim et al., arXiv
    2507.18616) retrieves this image. Here, a captioner describes the images of the pool
    (:class:`~synth2_lightning.modules.recaptioning.RecaptioningModule`), and the nearest of these captions by cosine
    similarity of sentence embeddings is retrieved. Of images with equal captions, a hash of the record selects one.
    Optionally, a scorer selects among several retrieved images. SynC then drops the tenth of the pairs with the lowest
    scores: train with ``keep_fraction: 0.9``.

    A record with several captions gets one image, by the mean of their embeddings. Records keep their keys; their seed
    is that of the new image.

    Args:
        pool: Folder of shards with the images, described by a captioner.
        encoder: Sentence encoder, such as ``PretrainedTextEncoder("weights://all-minilm-l6-v2")``.
        scorer: Selects the image with the highest score among the retrieved ones, and provides the scores; without one
            the first is taken, and the scores are the cosines.
        num_candidates: Number of retrieved images; more than one need a scorer.

    Raises:
        ValueError: If ``num_candidates`` is below 1, or above 1 without a scorer; when the weights are read, if the
            pool is of an evaluation split.
    """

    def __init__(
        self, pool: str, encoder: TextEncoder, scorer: PairScorer | None = None, num_candidates: int = 1
    ) -> None:
        super().__init__()
        if num_candidates < 1 or (num_candidates > 1 and scorer is None):
            raise ValueError(
                f"ReassignmentModule got num_candidates={num_candidates} and {'no' if scorer is None else 'a'} scorer; "
                "expected 1 or more candidates, and a scorer to select among several."
            )
        self.pool = ShardReader(pool)
        self.encoder = encoder.requires_grad_(False)
        self.scorer = scorer
        self.num_candidates = num_candidates
        self._index: CaptionIndex | None = None

    def configure_model(self) -> None:
        """Load the pool, the encoder and the scorer."""
        self.pool.load()
        if self.pool.manifest.is_evaluation:
            raise ValueError(
                f"The pool {self.pool.folder} comes from an evaluation split, so that scores on it would be invalid. "
                "Expected images of a training split."
            )
        super().configure_model()

    def provenance(self) -> dict[str, Any]:
        """Return the settings that determine the image of a caption."""
        return {
            "pool": self.pool.manifest.provenance.get("settings", {}),
            "pool_fingerprint": self.pool.fingerprint(),
            "encoder": fingerprint_weights(self.encoder.name, self.encoder),
            "num_candidates": self.num_candidates,
            "scorer": None
            if self.scorer is None
            else {"scorer_class": type(self.scorer).__name__, **self.scorer.provenance()},
        }

    @torch.no_grad()
    def predict_step(self, batch: object, batch_idx: int) -> TokenizedImages:
        """Return the batch with other images, and a score of every caption.

        Raises:
            ValueError: If a record has no caption.
        """
        batch = self.expect(batch, TokenizedImages, "ShardDataModule")
        if () in batch.captions:
            key = batch.keys[batch.captions.index(())]
            raise ValueError(f"The record {key!r} has no caption; expected at least one. Remove it from the shards.")
        if self._index is None:
            self._index = CaptionIndex(self.pool, self.encoder)
        sizes = [len(captions) for captions in batch.captions]
        texts = embed_sentences(self.encoder, [text for captions in batch.captions for text in captions]).split(sizes)
        queries = normalize(torch.stack([rows.mean(0) for rows in texts]), dim=1)
        nearest = self._index.find(queries, self.num_candidates)
        rows, scores = [], []
        for sample, captions, embeddings, found in zip(batch.samples, batch.captions, texts, nearest, strict=True):
            candidates = self._list_candidates(self._index, found.tolist(), hash_record((sample.source, sample.key)))
            if self.scorer is None:
                best, values = candidates[0], embeddings @ self._index.embeddings[found[0]]
            else:
                best, values = self._select(self.scorer, candidates, captions)
            rows.append(best)
            scores.append(tuple(values.tolist()))
        images = self.pool.read_all_columns(rows)
        return replace(
            batch,
            samples=tuple(
                replace(sample, seed=image.seed) for sample, image in zip(batch.samples, images.samples, strict=True)
            ),
            tokens=images.tokens,
            codebook_size=images.codebook_size,
            scores=tuple(scores),
        )

    def _list_candidates(self, index: CaptionIndex, nearest: Sequence[int], offset: int) -> list[int]:
        """Return rows of the pool, those with nearer captions first."""
        rows = [row for caption in nearest for row in index.list_images(caption, offset).tolist()]
        return list(dict.fromkeys(rows))[: self.num_candidates]

    def _select(
        self, scorer: PairScorer, candidates: Sequence[int], captions: Sequence[str]
    ) -> tuple[int, Float[Tensor, " captions"]]:
        """Return the row with the highest mean score over captions, and these scores."""
        tokens = self.pool.read(candidates).tokens.to(self.device)
        ids = tokens.ids.repeat_interleave(len(captions), 0)
        scores = score_pairs(scorer, VQTokens(ids, tokens.codebook), [*captions] * len(candidates))
        values = scores.view(len(candidates), len(captions))
        best = int(values.mean(1).argmax())
        return candidates[best], values[best]
