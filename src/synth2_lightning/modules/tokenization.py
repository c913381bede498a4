"""Photographs become image tokens: what `synth2 predict --config tokenize.yaml` runs."""

from typing import Any

from lightning.pytorch import LightningModule

from synth2_lightning.fingerprints import fingerprint_weights
from synth2_lightning.interfaces import ImageTokenizer
from synth2_lightning.types import ImageTextBatch, Pixels, TokenizedImages


class TokenizationModule(LightningModule):
    """Turns batches of photographs into tokens, for ``ShardWriterCallback`` to write.

    Args:
        tokenizer: Turns pictures into codebook ids.

    Example:
        >>> from synth2_lightning.testing import TinyImageTokenizer, tiny_batch
        >>> TokenizationModule(TinyImageTokenizer()).predict_step(tiny_batch(3), 0).tokens.ids.shape
        torch.Size([3, 4, 1])
    """

    def __init__(self, tokenizer: ImageTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer.requires_grad_(False)

    def configure_model(self) -> None:
        """Bring the tokenizer's weights."""
        self.tokenizer.load()

    def provenance(self) -> dict[str, Any]:
        """Give what decides the tokens of a picture."""
        name = type(self.tokenizer).__name__
        # The same codes may be chosen by another encoder.
        weights = fingerprint_weights(name, self.tokenizer)
        return {"tokenizer_class": name, "codebook": self.tokenizer.codebook, "weights": weights}

    def predict_step(self, batch: ImageTextBatch, batch_idx: int) -> TokenizedImages:
        """Tokenize a batch; the captions of its pictures go with them.

        Raises:
            TypeError: If the batch does not hold photographs.
        """
        if not isinstance(batch.image, Pixels):
            raise TypeError(
                f"TokenizationModule was given {type(batch.image).__name__}; expected Pixels: only photographs can "
                "be tokenized. Use a RealDataModule."
            )
        return TokenizedImages(
            keys=batch.keys,
            sources=batch.sources,
            captions=batch.references or tuple((caption,) for caption in batch.captions),
            tokens=self.tokenizer.tokenize(batch.image),
            codebook_size=self.tokenizer.codebook_size,
        )
