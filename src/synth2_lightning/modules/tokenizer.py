"""Training of an image tokenizer: VQ-GAN without a discriminator (Esser et al., arXiv 2012.09841)."""

from typing import ClassVar, TypedDict

import torch
from torch import Tensor
from torch.optim import AdamW

from synth2_lightning.encoders.vqgan import TrainableTokenizer
from synth2_lightning.metrics.codebook import CodebookPerplexity, CodebookUsage
from synth2_lightning.modules.base import BaseModule
from synth2_lightning.modules.exports import export_folder
from synth2_lightning.modules.pixels import get_pixels
from synth2_lightning.nn.perceptual import FeatureExtractor, perceptual_distance
from synth2_lightning.training.divergence import check_finite_weights
from synth2_lightning.training.optimizers import OptimizerFactory, SchedulerFactory
from synth2_lightning.types import ImageTextBatch, Reconstruction


class ReconstructionOutput(TypedDict):
    """Output of ``validation_step`` and ``test_step``."""

    loss: Tensor
    reconstruction: Reconstruction


class TokenizerModule(BaseModule):
    """Trains a tokenizer to reconstruct images from their codes; captions are not used.

    At the end of the fit the tokenizer is written, for its frozen class to load.

    Args:
        tokenizer: Tokenizer to train.
        l1_weight: Weight of the mean absolute difference, which keeps edges sharp.
        l2_weight: Weight of the mean squared difference, which penalizes large errors.
        commitment_weight: Weight of the distance of the encoder's outputs to their codes (van den Oord et al., arXiv
            1711.00937, equation 3).
        features: Network whose features of reconstruction and original are compared, in addition to pixels. None
            compares pixels only.
        perceptual_weight: Weight of the :func:`~synth2_lightning.nn.perceptual.perceptual_distance`.
        export_to: Folder that the tokenizer is written to; by default ``tokenizer/`` in the log folder.
        optimizer: See :class:`BaseModule`.
        lr_scheduler: See :class:`BaseModule`.

    Raises:
        ValueError: If a weight is negative, or ``l1_weight`` and ``l2_weight`` are both 0.

    Example:
        >>> from synth2_lightning.encoders.vqgan import TrainableVQGAN
        >>> module = TokenizerModule(TrainableVQGAN(image_size=16, block_out_channels=(8, 8)))
        >>> module.num_trainable() > 0
        True
    """

    frozen_components: ClassVar[tuple[str, ...]] = ("features",)

    def __init__(
        self,
        tokenizer: TrainableTokenizer,
        l1_weight: float = 1.0,
        l2_weight: float = 1.0,
        commitment_weight: float = 0.25,
        features: FeatureExtractor | None = None,
        perceptual_weight: float = 1.0,
        export_to: str | None = None,
        optimizer: OptimizerFactory = AdamW,
        lr_scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        if min(l1_weight, l2_weight, commitment_weight, perceptual_weight) < 0 or l1_weight + l2_weight == 0:
            raise ValueError(
                f"TokenizerModule got l1_weight={l1_weight}, l2_weight={l2_weight}, commitment_weight="
                f"{commitment_weight} and perceptual_weight={perceptual_weight}; expected 0 or more for each, and the "
                "first or the second above 0."
            )
        self.tokenizer = tokenizer
        self.l1_weight = l1_weight
        self.l2_weight = l2_weight
        self.commitment_weight = commitment_weight
        self.features = features
        self.perceptual_weight = perceptual_weight
        self.export_to = export_to
        self.train_perplexity = CodebookPerplexity(tokenizer.codebook_size)
        self.eval_perplexity = CodebookPerplexity(tokenizer.codebook_size)
        self.eval_usage = CodebookUsage(tokenizer.codebook_size)

    def compute_losses(self, reconstruction: Reconstruction) -> dict[str, Tensor]:
        """Return the terms of the loss, and their weighted sum as ``"loss"``."""
        difference = reconstruction.pixels - reconstruction.target
        l1, l2 = difference.abs().mean(), difference.square().mean()
        loss = self.l1_weight * l1 + self.l2_weight * l2 + self.commitment_weight * reconstruction.commitment
        losses = {"loss": loss, "l1": l1, "l2": l2, "commitment": reconstruction.commitment}
        if self.features is not None:
            with torch.no_grad():
                target = self.features.extract(reconstruction.target)
            losses["perceptual"] = perceptual_distance(self.features.extract(reconstruction.pixels), target)
            losses["loss"] = loss + self.perceptual_weight * losses["perceptual"]
        return losses

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """Return the loss; log its terms, the codebook perplexity, and the number of re-initialized codes."""
        reconstruction = self.tokenizer.reconstruct(get_pixels(batch, "TokenizerModule"))
        losses = self.compute_losses(reconstruction)
        metrics: dict[str, Tensor | float] = {f"train/{name}": value.detach() for name, value in losses.items()}
        metrics["train/perplexity"] = self.train_perplexity(reconstruction.ids)
        metrics["train/revived_codes"] = float(reconstruction.num_revived)
        self.log_training(metrics, len(batch), shown=("train/loss", "train/perplexity"))
        return losses["loss"]

    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> ReconstructionOutput:
        """Measure the terms of the loss, the codebook perplexity, and the fraction of codes that are used."""
        return self._evaluate(batch, "val")

    def test_step(self, batch: ImageTextBatch, batch_idx: int) -> ReconstructionOutput:
        """Do the same as in validation; the metrics' names begin with ``test``."""
        return self._evaluate(batch, "test")

    def on_fit_end(self) -> None:
        """Run at the end of a fit: writes the trained tokenizer."""
        check_finite_weights(self)
        folder = export_folder(self.trainer, self.export_to, "tokenizer")
        if self.trainer.is_global_zero:
            self.tokenizer.export(folder)

    def _evaluate(self, batch: ImageTextBatch, stage: str) -> ReconstructionOutput:
        reconstruction = self.tokenizer.reconstruct(get_pixels(batch, "TokenizerModule"))
        losses = self.compute_losses(reconstruction)
        for name, value in losses.items():
            self.log(f"{stage}/{name}", value, prog_bar=name == "loss", batch_size=len(batch), sync_dist=True)
        self.eval_perplexity.update(reconstruction.ids)
        self.eval_usage.update(reconstruction.ids)
        self.log(f"{stage}/perplexity", self.eval_perplexity, on_step=False, on_epoch=True)
        self.log(f"{stage}/used_codes", self.eval_usage, on_step=False, on_epoch=True)
        return ReconstructionOutput(loss=losses["loss"], reconstruction=reconstruction)
