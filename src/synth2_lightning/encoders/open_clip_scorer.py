"""CLIPScore of image tokens and captions by an open_clip model."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from synth2_lightning.encoders.open_clip import OpenClipImageTextEncoder
from synth2_lightning.interfaces import ImageTokenizer, PairScorer
from synth2_lightning.io.fingerprints import fingerprint_weights
from synth2_lightning.types import VQTokens


class OpenClipScorer(PairScorer):
    """Cosine similarity of the decoded image and its caption under an open_clip model, in [-1, 1].

    CLIPScore (arXiv 2104.08718) without its scaling factor.

    Args:
        tokenizer: Decodes the image tokens to pixels.
        model: open_clip architecture.
        pretrained: Pretrained tag or location of a local file, as for
            :class:`~synth2_lightning.encoders.open_clip.OpenClipEncoder`.

    Raises:
        ValueError: If ``model`` is not an open_clip architecture.
    """

    def __init__(self, tokenizer: ImageTokenizer, model: str, pretrained: str) -> None:
        super().__init__()
        self.encoder = OpenClipImageTextEncoder(model, pretrained)
        self.tokenizer = tokenizer
        self._fingerprint: str | None = None

    def _load(self) -> None:
        self.tokenizer.load()
        self.encoder.load()
        self._fingerprint = fingerprint_weights("open_clip", self)

    def provenance(self) -> dict[str, Any]:
        """Return the model's name and a fingerprint of all weights, including the tokenizer's."""
        return self.encoder.provenance() | {"weights": self._fingerprint}

    @torch.no_grad()
    def score(self, tokens: VQTokens, captions: Sequence[str]) -> Float[Tensor, " batch"]:
        """Return one score per image-caption pair.

        Raises:
            TypeError: If the tokenizer has no decoder.
            ValueError: If the tokens belong to another codebook.
        """
        if self._fingerprint is None:
            raise RuntimeError(f"The weights of scorer {self.encoder.model!r} are not loaded; call load() first.")
        images = self.encoder.embed_images(self.tokenizer.detokenize(tokens))
        return (images * self.encoder.embed_texts(captions)).sum(1)
