"""Tokenization of photos, for `synth2 predict --config tokenize.yaml`."""

from typing import Any

from lightning.pytorch import LightningModule

from synth2_lightning.interfaces import ImageTokenizer
from synth2_lightning.io.fingerprints import fingerprint_weights
from synth2_lightning.types import ImageTextBatch, Pixels, TokenizedImages


class TokenizationModule(LightningModule):
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

    def configure_model(self) -> None:
        """Load the tokenizer's weights."""
        self.tokenizer.load()

    def provenance(self) -> dict[str, Any]:
        """Return the settings that determine the tokens of an image."""
        name = type(self.tokenizer).__name__
        # Different encoders can share a codebook.
        weights = fingerprint_weights(name, self.tokenizer)
        return {"tokenizer_class": name, "codebook": self.tokenizer.codebook, "weights": weights}

    def predict_step(self, batch: ImageTextBatch, batch_idx: int) -> TokenizedImages:
        """Return the tokens and captions of a batch.

        Raises:
            TypeError: If the batch contains no photos.
        """
        if not isinstance(batch.image, Pixels):
            raise TypeError(
                f"TokenizationModule got {type(batch.image).__name__}; expected Pixels, because only photos can be "
                "tokenized. Use a RealDataModule."
            )
        return TokenizedImages(
            samples=batch.samples,
            captions=batch.references or tuple((caption,) for caption in batch.captions),
            tokens=self.tokenizer.tokenize(batch.image),
            codebook_size=self.tokenizer.codebook_size,
        )
