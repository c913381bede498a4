"""Captions become image tokens: what `synth2 predict` runs to make synthetic pairs (Synth², arXiv 2403.07750)."""

import logging
from typing import Any

from lightning.pytorch import LightningModule

from synth2_lightning.interfaces import ImageGenerator
from synth2_lightning.types import CaptionBatch, ImageTextBatch, TokenizedImages, VQTokens

_logger = logging.getLogger(__name__)


class SynthesisModule(LightningModule):
    """Turns batches of captions into image tokens, for ``ShardWriterCallback`` to write.

    Args:
        generator: Turns captions into codebook ids.

    Example:
        >>> from synth2_lightning.testing import TinyImageGenerator
        >>> batch = CaptionBatch(("a red circle",), ("7",), ("synthetic",), ("",), (1234,))
        >>> SynthesisModule(TinyImageGenerator()).predict_step(batch, 0).tokens.ids.shape
        torch.Size([1, 4, 1])
    """

    def __init__(self, generator: ImageGenerator) -> None:
        super().__init__()
        self.generator = generator.requires_grad_(False)

    def configure_model(self) -> None:
        """Bring the generator's weights."""
        self.generator.load()

    def provenance(self) -> dict[str, Any]:
        """Give what decides the tokens besides caption and seed."""
        return {"generator_class": type(self.generator).__name__, **self.generator.provenance()}

    def on_predict_end(self) -> None:
        """Say how many captions were longer than the generator's text encoder reads."""
        num_cut = sum(int(getattr(part, "num_truncated", 0)) for part in self.generator.modules())
        if num_cut:
            _logger.warning(
                "%d captions were longer than the text encoder reads: their pictures know nothing of their ends. Raise "
                "its max_length, or shorten the captions, and write to another folder.",
                num_cut,
            )

    def predict_step(self, batch: CaptionBatch | ImageTextBatch, batch_idx: int) -> TokenizedImages:
        """Synthesise a picture per caption.

        Raises:
            TypeError: If the batch does not hold captions, or the generator makes what shards cannot hold.
            ValueError: If the generator makes more or fewer pictures than it was asked for.
        """
        if not isinstance(batch, CaptionBatch):
            raise TypeError(
                f"SynthesisModule was given {type(batch).__name__}; expected CaptionBatch. Use a CaptionDataModule."
            )
        tokens = self.generator.generate(batch.captions, batch.seeds)
        if not isinstance(tokens, VQTokens):
            raise TypeError(
                f"{type(self.generator).__name__} made {type(tokens).__name__}; expected VQTokens, because shards hold "
                "codebook ids. Have the generator draw hard ids."
            )
        if len(tokens) != len(batch):
            raise ValueError(
                f"{type(self.generator).__name__} made {len(tokens)} pictures of {len(batch)} captions; expected one "
                "of each. The generator is at fault."
            )
        return TokenizedImages(
            keys=batch.keys,
            sources=batch.sources,
            captions=tuple((caption,) for caption in batch.captions),
            tokens=tokens,
            codebook_size=self.generator.codebook_size,
            class_names=batch.class_names,
            seeds=batch.seeds,
        )
