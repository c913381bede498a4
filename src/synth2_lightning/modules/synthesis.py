"""Generation of image tokens from captions, for synthetic pairs (Synth², arXiv 2403.07750)."""

import logging
from typing import Any

from synth2_lightning.interfaces import ImageGenerator
from synth2_lightning.modules.prediction import PredictionModule
from synth2_lightning.types import CaptionBatch, TokenizedImages

_logger = logging.getLogger(__name__)


class SynthesisModule(PredictionModule):
    """Generates image tokens for batches of captions; ``ShardWriterCallback`` writes them.

    Args:
        generator: Generates codebook ids from captions.

    Example:
        >>> from synth2_lightning.testing import TinyImageGenerator
        >>> from synth2_lightning.types import SampleInfo
        >>> captions = (("a red circle", "a circle"),)
        >>> batch = CaptionBatch(captions, (("a red circle",),), (SampleInfo("7", "synthetic", seed=1234),))
        >>> SynthesisModule(TinyImageGenerator()).predict_step(batch, 0).tokens.ids.shape
        torch.Size([1, 4, 1])
    """

    def __init__(self, generator: ImageGenerator) -> None:
        super().__init__()
        self.generator = generator.requires_grad_(False)

    def provenance(self) -> dict[str, Any]:
        """Return the settings that determine the tokens, besides caption and seed."""
        return {"generator_class": type(self.generator).__name__, **self.generator.provenance()}

    def on_predict_end(self) -> None:
        """Run after a prediction: logs the number of captions that the text encoder truncated."""
        num_truncated = sum(int(getattr(part, "num_truncated", 0)) for part in self.generator.modules())
        if num_truncated:
            _logger.warning(
                "%d captions were truncated by the text encoder, and their images do not depend on the rest. Raise its "
                "max_length, or shorten the captions, and write to another folder.",
                num_truncated,
            )

    def predict_step(self, batch: object, batch_idx: int) -> TokenizedImages:
        """Return the tokens of one image per row, with all its captions."""
        batch = self.expect(batch, CaptionBatch, "CaptionDataModule")
        tokens = self.generator.generate(batch.conditions, batch.seeds)
        if len(tokens) != len(batch):
            raise ValueError(
                f"{type(self.generator).__name__} returned {len(tokens)} images for {len(batch)} captions; expected "
                "one per caption. Fix its generate()."
            )
        return TokenizedImages(
            samples=batch.samples,
            captions=batch.captions,
            tokens=tokens,
            codebook_size=self.generator.codebook_size,
        )
