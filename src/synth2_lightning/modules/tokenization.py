"""Tokenization of photos, for `synth2 predict --config tokenize.yaml`."""

from typing import Any

from synth2_lightning.interfaces import ImageTokenizer
from synth2_lightning.io.fingerprints import fingerprint_weights
from synth2_lightning.modules.pixels import get_pixels
from synth2_lightning.modules.prediction import PredictionModule
from synth2_lightning.types import ImageTextBatch, TokenizedImages


class TokenizationModule(PredictionModule):
    """Tokenizes batches of photos; ``ShardWriterCallback`` writes the tokens.

    Args:
        tokenizer: Maps images to codebook ids.

    Example:
        >>> from synth2_lightning.testing import TinyImageTokenizer, tiny_batch
        >>> TokenizationModule(TinyImageTokenizer()).predict_step(tiny_batch(3), 0).tokens.ids.shape
        torch.Size([3, 4, 1])
    """

    def __init__(self, tokenizer: ImageTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer.requires_grad_(False)

    def provenance(self) -> dict[str, Any]:
        """Return the settings that determine the tokens of an image."""
        name = type(self.tokenizer).__name__
        # Different encoders can share a codebook.
        weights = fingerprint_weights(name, self.tokenizer)
        return {"tokenizer_class": name, "codebook": self.tokenizer.codebook, "weights": weights}

    def predict_step(self, batch: ImageTextBatch, batch_idx: int) -> TokenizedImages:
        """Return the tokens and captions of a batch of photos."""
        return TokenizedImages(
            samples=batch.samples,
            captions=batch.references or tuple((caption,) for caption in batch.captions),
            tokens=self.tokenizer.tokenize(get_pixels(batch, "TokenizationModule")),
            codebook_size=self.tokenizer.codebook_size,
        )
