"""Training of a codebook over the features of a frozen image encoder."""

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torchmetrics import ExplainedVariance

from synth2_lightning.encoders.quantized import CodebookLearner
from synth2_lightning.metrics.codebook import CodebookPerplexity
from synth2_lightning.modules.base import BaseModule
from synth2_lightning.modules.exports import export_folder
from synth2_lightning.modules.pixels import get_pixels
from synth2_lightning.types import ImageTextBatch, Quantization


class CodebookModule(BaseModule):
    """Trains a codebook on images; captions are not used.

    Logs the fraction of the features' variance that the codes explain, and the perplexity over all levels: the
    effective number of the ``codebook_size * num_levels`` codes. At the end of the fit the codebook is written, for
    :class:`~synth2_lightning.encoders.quantized.QuantizedEncoder`.

    Args:
        learner: Codebook, with the encoder whose features it quantizes.
        export_to: Folder that the codebook is written to; by default ``codebook/`` in the log folder.

    Example:
        >>> from synth2_lightning.encoders.quantized import ResidualCodebookLearner
        >>> from synth2_lightning.testing import TinyImageTokenizer
        >>> module = CodebookModule(ResidualCodebookLearner(TinyImageTokenizer(), codebook_size=4, num_levels=2))
        >>> module.num_trainable()
        1
    """

    def __init__(self, learner: CodebookLearner, export_to: str | None = None) -> None:
        super().__init__()
        self.learner = learner
        self.export_to = export_to
        # Moving averages need no optimizer, but Lightning counts optimizer steps, and DDP requires a gradient.
        self.anchor = nn.Parameter(torch.zeros(()))
        num_codes = learner.codebook_size * learner.num_levels
        self.train_explained = ExplainedVariance(multioutput="variance_weighted")
        self.train_perplexity = CodebookPerplexity(num_codes)
        self.eval_explained = ExplainedVariance(multioutput="variance_weighted")
        self.eval_perplexity = CodebookPerplexity(num_codes)

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """Update the codebook with a batch, and return the quantization error."""
        quantization = self.learner.quantize(get_pixels(batch, "CodebookModule"))
        loss = (quantization.quantized - quantization.features).square().mean()
        explained = self.train_explained(*_rows(quantization))
        perplexity = self.train_perplexity(_all_codes(quantization.ids, self.learner.codebook_size))
        metrics = {"train/loss": loss, "train/explained_variance": explained, "train/perplexity": perplexity}
        self.log_training(metrics, len(batch), shown=("train/explained_variance", "train/perplexity"))
        return loss + 0.0 * self.anchor

    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> None:
        """Measure the codebook without updating it."""
        # Before the first training step the codebook is not initialized.
        if not self.trainer.sanity_checking:
            self._measure(batch, "val")

    def test_step(self, batch: ImageTextBatch, batch_idx: int) -> None:
        """Do the same as in validation; the metrics' names begin with ``test``."""
        self._measure(batch, "test")

    def on_fit_end(self) -> None:
        """Run at the end of a fit: writes the codebook."""
        folder = export_folder(self.trainer, self.export_to, "codebook")
        if self.trainer.is_global_zero:
            self.learner.export(folder)

    def _measure(self, batch: ImageTextBatch, stage: str) -> None:
        quantization = self.learner.quantize(get_pixels(batch, "CodebookModule"))
        self.eval_explained(*_rows(quantization))
        self.eval_perplexity(_all_codes(quantization.ids, self.learner.codebook_size))
        self.log(f"{stage}/explained_variance", self.eval_explained, prog_bar=True, on_step=False, on_epoch=True)
        self.log(f"{stage}/perplexity", self.eval_perplexity, on_step=False, on_epoch=True)


def _rows(quantization: Quantization) -> tuple[Tensor, Tensor]:
    return quantization.quantized.flatten(0, 1), quantization.features.flatten(0, 1)


def _all_codes(ids: Int[Tensor, "batch tokens levels"], codebook_size: int) -> Int[Tensor, "batch tokens levels"]:
    # Each level has its own codes, so the same id on two levels is two codes.
    return ids + codebook_size * torch.arange(ids.shape[2], device=ids.device)
