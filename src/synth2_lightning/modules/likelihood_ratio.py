"""How much likelier a picture makes its caption, in the eyes of a trained captioner."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from synth2_lightning.fingerprints import fingerprint_weights
from synth2_lightning.interfaces import PairScorer
from synth2_lightning.locations import resolve
from synth2_lightning.modules.captioner_checkpoint import read_captioner
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.types import VQTokens


class LikelihoodRatioScorer(PairScorer):
    """Scores a pair by ``(log p(caption | picture) - log p(caption)) / number of tokens``, in nats per token.

    The pointwise mutual information of caption and picture, per token: captions that are likely anyhow gain nothing by
    it, and long ones lose nothing. The captioner never saw a caption without a picture, so what it would say to an
    empty one means nothing. ``p(caption)`` is what its own answers add up to instead, the mean of ``p(caption |
    picture)`` over a fixed sample of pictures, the reference: no second model is needed, and none whose words are rated
    otherwise. The sample sees rare captions too seldom, as any does; it is the same for every pair.

    Take a captioner that learnt from photographs only: one that learnt from the pairs agrees with them.

    Args:
        checkpoint: Location of a checkpoint of a :class:`~synth2_lightning.modules.captioning.VisionLanguageModule`,
            as ``synth2 fit`` writes it.
        references: Folder of shards that the reference pictures are taken from, evenly over its rows: pictures such as
            the captioner was trained on, of its codebook. Where one of them is scored, it is left out beside itself.
        num_references: How many; each costs as much as the picture itself.

    Raises:
        ValueError: If ``num_references`` is below two.

    Example:
        >>> LikelihoodRatioScorer("runs/version_0/checkpoints/last.ckpt", "shards/scenes").num_references
        16
    """

    def __init__(self, checkpoint: str, references: str, num_references: int = 16) -> None:
        super().__init__()
        if num_references < 2:
            raise ValueError(
                f"LikelihoodRatioScorer got num_references={num_references}; expected 2 or more pictures to compare "
                "with."
            )
        self.checkpoint = checkpoint
        self.references = references
        self.num_references = num_references
        self.captioner: VisionLanguageModule | None = None
        self._provenance: dict[str, Any] = {}
        self._codebook = ""
        self._reference_visual: Tensor | None = None

    reference_ids: Tensor

    def load(self) -> None:
        """Bring the captioner and the reference pictures; the second call does nothing.

        Raises:
            FileNotFoundError: If there is no such checkpoint, or no such folder.
            ValueError: If the checkpoint does not say how its parts are made, or the folder holds too few pictures.
        """
        if self.captioner is not None:
            return
        reader = ShardReader(self.references)
        reader.load()
        tokens = reader.read(
            [number * len(reader) // self.num_references for number in range(self.num_references)]
        ).tokens
        ids = torch.unique(tokens.ids, dim=0)
        if len(ids) < 2:
            raise ValueError(
                f"The references {self.references!r} hold only one picture that differs from others; expected 2 or "
                "more to compare with. Name a folder with more."
            )
        path = resolve(self.checkpoint, "captioner's checkpoint")
        captioner = read_captioner(path)
        self.register_buffer("reference_ids", ids, persistent=False)
        self._provenance = {
            "captioner": fingerprint_weights("captioner", captioner),
            "references": hashlib.sha256(ids.numpy()).hexdigest()[:8],
            "num_references": len(ids),
        }
        self._codebook = tokens.codebook
        self.captioner = captioner.requires_grad_(False).eval()

    def provenance(self) -> dict[str, Any]:
        """Give the fingerprints of the captioner and of the reference pictures."""
        return self._provenance

    @torch.no_grad()
    def score(self, tokens: VQTokens, captions: Sequence[str]) -> Float[Tensor, " batch"]:
        """Score each caption beside its picture, in nats per token.

        Raises:
            RuntimeError: If ``load()`` was not called.
            ValueError: If the tokens, or the references, speak another codebook than the captioner.
        """
        if self.captioner is None:
            raise RuntimeError("The scorer has no captioner yet; call load() before scoring pairs.")
        if self._reference_visual is None:
            self._reference_visual = self.captioner.look(VQTokens(self.reference_ids, self._codebook))
        decoder = self.captioner.decoder
        own = decoder.loss(self.captioner.look(tokens), captions)
        others = torch.stack(
            [-decoder.loss(visual.expand(len(captions), -1, -1), captions).sums for visual in self._reference_visual], 1
        )
        is_itself = (tokens.ids[:, None] == self.reference_ids).flatten(2).all(2)
        # log of the mean of p(caption | picture) over the other pictures
        log_marginal = others.masked_fill(is_itself, -torch.inf).logsumexp(1) - is_itself.logical_not().sum(1).log()
        return (-own.sums - log_marginal) / own.counts
