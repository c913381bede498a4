"""Likelihood ratio of a caption with and without its image, by a trained captioner."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from synth2_lightning.interfaces import PairScorer
from synth2_lightning.io.fingerprints import fingerprint_weights
from synth2_lightning.io.locations import resolve
from synth2_lightning.modules.captioner_checkpoint import read_captioner
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.types import VQTokens


class LikelihoodRatioScorer(PairScorer):
    """Scores a pair by ``(log p(caption | image) - log p(caption)) / number of tokens``, in nats per token.

    This is the pointwise mutual information of caption and image, per token: generic captions are not favored, and long
    ones are not penalized. The captioner was never trained without an image, so ``p(caption)`` is estimated as the mean
    of ``p(caption | image)`` over a fixed sample of reference images, the same for every pair. No second model is
    needed. As in any finite sample, rare captions are underrepresented.

    Use a captioner that was trained on photos only: one that was trained on the scored pairs fits their errors.

    Args:
        checkpoint: Location of a checkpoint of a :class:`~synth2_lightning.modules.captioning.VisionLanguageModule`,
            written by ``synth2 fit``.
        references: Folder of shards with reference images, which are taken at even distances: images like those that
            the captioner was trained on, with its codebook. A scored image is excluded from its own references.
        num_references: Number of reference images; the cost grows in proportion.
        limit: Maximum number of rows of the folder to take references from, from the first; ``None`` uses all.

    Raises:
        ValueError: If ``num_references`` is below two or the limit below one; on ``load()``, if the checkpoint does not
            describe its components, or the folder has too few different images.

    Example:
        >>> LikelihoodRatioScorer("runs/version_0/checkpoints/last.ckpt", "shards/scenes").num_references
        16
    """

    def __init__(self, checkpoint: str, references: str, num_references: int = 16, limit: int | None = None) -> None:
        super().__init__()
        if num_references < 2:
            raise ValueError(f"LikelihoodRatioScorer got num_references={num_references}; expected 2 or more images.")
        self.checkpoint = checkpoint
        self.references = references
        self.num_references = num_references
        self._reader = ShardReader(references, limit)
        self.captioner: VisionLanguageModule | None = None
        self._provenance: dict[str, Any] = {}
        self._codebook = ""
        self._reference_visual: Tensor | None = None

    reference_ids: Tensor

    def _load(self) -> None:
        reader = self._reader
        reader.load()
        rows = [number * len(reader) // self.num_references for number in range(self.num_references)]
        tokens = reader.read(rows).tokens
        ids = torch.unique(tokens.ids, dim=0)
        if len(ids) < 2:
            raise ValueError(
                f"The references {self.references!r} contain only one different image; expected 2 or more. Use a "
                "folder with more images."
            )
        captioner = read_captioner(resolve(self.checkpoint, "captioner's checkpoint"))
        self.register_buffer("reference_ids", ids, persistent=False)
        self._provenance = {
            "captioner": fingerprint_weights("captioner", captioner),
            "references": hashlib.sha256(ids.numpy()).hexdigest()[:8],
            "num_references": len(ids),
        }
        self._codebook = tokens.codebook
        self.captioner = captioner

    def provenance(self) -> dict[str, Any]:
        """Return the fingerprints of the captioner and of the reference images."""
        return self._provenance

    @torch.no_grad()
    def score(self, tokens: VQTokens, captions: Sequence[str]) -> Float[Tensor, " batch"]:
        """Return the score of each caption with its image, in nats per token.

        Raises:
            RuntimeError: If ``load()`` was not called.
            ValueError: If the tokens or the references belong to another codebook than the captioner's.
        """
        if self.captioner is None:
            raise RuntimeError("The scorer's captioner is not loaded; expected load() before score().")
        if self._reference_visual is None:
            self._reference_visual = self.captioner.encode_images(VQTokens(self.reference_ids, self._codebook))
        decoder = self.captioner.decoder
        own = decoder.loss(self.captioner.encode_images(tokens), captions)
        others = torch.stack(
            [-decoder.loss(visual.expand(len(captions), -1, -1), captions).sums for visual in self._reference_visual], 1
        )
        is_same = (tokens.ids[:, None] == self.reference_ids).flatten(2).all(2)
        # log of the mean of p(caption | image) over the other images
        log_marginal = others.masked_fill(is_same, -torch.inf).logsumexp(1) - is_same.logical_not().sum(1).log()
        return (-own.sums - log_marginal) / own.counts
