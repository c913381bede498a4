"""The captioner of Synth² (arXiv 2403.07750): frozen image encoder, trained resampler, language decoder.

The path of a batch from the datamodule to the loss:

1. A datamodule yields an ``ImageTextBatch``: images (pixels, image tokens or both), one caption per image, and the
   name of each image's source.
2. ``image_encoder`` maps images of any kind to embeddings ``(batch, tokens, dim)``, without gradients.
3. ``resampler`` maps these to visual tokens ``(batch, latents, width)``.
4. ``decoder.loss`` returns the negative log-likelihood of each caption, given its visual tokens: a sum over tokens and
   their number per image (``TokenLoss``).
5. ``mean_over_ranks`` of the base class divides by the number of tokens on all ranks, and Lightning calls ``backward``.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import AdamW

from synth2_lightning.interfaces import ImageEncoder, LanguageDecoder, Resampler
from synth2_lightning.metrics.token_loss import MeanTokenLoss
from synth2_lightning.modules.base import BaseModule
from synth2_lightning.nn.transfer import to_device
from synth2_lightning.training.compilation import compile_blocks
from synth2_lightning.training.optimizers import OptimizerFactory, SchedulerFactory
from synth2_lightning.training.sharding import choose_precision, shard_component, shard_frozen
from synth2_lightning.types import CaptionOutput, GenerationSettings, ImageInput, ImageTextBatch, TokenLoss


class VisionLanguageModule(BaseModule):
    """A captioner trained on photos and image tokens.

    There are two ways to extend it. For another resampler or decoder, pass your own subclass of ``Resampler`` or
    ``LanguageDecoder``; a run file names it by ``class_path``. For another objective or output, subclass this module
    and override :meth:`compute_loss` or :meth:`generate`.

    Args:
        image_encoder: Encodes images of any kind as ``(batch, tokens, dim)``; frozen.
        resampler: Maps the embeddings to visual tokens; gets the widths of encoder and decoder from this module.
        decoder: Language model conditioned on visual tokens.
        generation: Parameters of the decoding in validation, test, prediction and :meth:`caption`.
        optimizer: See :class:`BaseModule`.
        lr_scheduler: See :class:`BaseModule`.
        compile_network: Compile the blocks of resampler and decoder by ``torch.compile`` for training;
            ``benchmarks/gpu.py`` measures the effect. Losses differ from those without it by rounding.

    Example:
        >>> from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch
        >>> module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
        >>> module.encode_images(tiny_batch().image).shape
        torch.Size([2, 4, 8])
        >>> len(module.caption(tiny_batch().image))
        2
    """

    frozen_components: ClassVar[tuple[str, ...]] = ("image_encoder",)

    def __init__(
        self,
        image_encoder: ImageEncoder,
        resampler: Resampler,
        decoder: LanguageDecoder,
        generation: GenerationSettings = GenerationSettings(),  # noqa: B008 - frozen, and read by the command line
        optimizer: OptimizerFactory = AdamW,
        lr_scheduler: SchedulerFactory | None = None,
        compile_network: bool = False,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        self.image_encoder = image_encoder.requires_grad_(False)
        if not isinstance(resampler, Resampler):
            raise TypeError(
                f"{type(self).__name__} got the resampler {resampler!r:.100}; expected an object, such as "
                "PerceiverResampler(num_latents=64), which gets the widths of encoder and decoder from the module."
            )
        self.resampler = resampler.build(image_encoder.embed_dim, decoder.embed_dim)
        self.decoder = decoder
        self.generation = generation
        self.compile_network = compile_network
        self.token_loss = MeanTokenLoss()

    def on_train_start(self) -> None:
        """Run before the first step: compiles the trained components if that is set."""
        super().on_train_start()
        if self.compile_network:
            compile_blocks(self.resampler)
            compile_blocks(self.decoder)

    @torch.no_grad()
    def caption(self, images: ImageInput, prompts: Sequence[str] | None = None) -> list[str]:
        """Generate one caption per image, or the texts of a subclass. Call ``eval()`` first: training mode has dropout.

        Args:
            images: ``Pixels`` ``(batch, 3, height, width)`` of uint8, ``VQTokens`` ``(batch, tokens, levels)``,
                or ``MixedImages`` of both; on any device.
            prompts: One per image, see :class:`LanguageDecoder`; by default its ``prompt`` for all.

        Raises:
            ValueError: If the number of prompts is not that of the images.
        """
        with self._without_compilation():
            return self.generate(self.encode_images(images.to(self.device)), prompts)

    def encode_images(self, images: ImageInput) -> Float[Tensor, "batch latents width"]:
        """Return the visual tokens of images of any kind; gradients end at the encoder's embeddings."""
        with torch.no_grad():
            embeddings = self.image_encoder(images)
        visual: Tensor = self.resampler(embeddings)
        return visual

    def compute_loss(self, visual: Float[Tensor, "batch latents width"], batch: ImageTextBatch) -> TokenLoss:
        """Return the loss of each row; by default the negative log-likelihood of its caption. Override it."""
        return self.decoder.loss(visual, batch.captions, batch.prompts or None)

    def generate(self, visual: Float[Tensor, "batch latents width"], prompts: Sequence[str] | None = None) -> list[str]:
        """Return one text per row; by default a caption. Override it."""
        return self.decoder.generate(visual, self.generation, prompts)

    def protocol(self) -> dict[str, Any]:
        """Return the settings that generated texts depend on, for the protocol card of a score."""
        return {
            "decoder": type(self.decoder).__name__,
            "prompt": self.decoder.prompt,
            "generation": asdict(self.generation),
        }

    @final
    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """Return the weighted loss of a batch; log it, and the loss and the fraction of each source."""
        losses = self.compute_loss(self.encode_images(batch.image), batch).weighted(batch.weights)
        loss, mean = self.mean_over_ranks(losses)
        metrics: dict[str, Tensor | float] = {"train/loss": mean}
        for source, value in source_losses(losses.sums.detach(), losses.counts, batch.sources).items():
            metrics[f"train/loss_{source}"] = value
        shown = tuple(metrics)
        for source in set(batch.sources):
            metrics[f"data/fraction_{source}"] = batch.sources.count(source) / len(batch)
        self.log_training(metrics, len(batch), shown)
        return loss

    @final
    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> CaptionOutput:
        """Update the mean loss and generate captions, which callbacks such as CIDEr score."""
        return self._evaluate(batch, "val")

    @final
    def test_step(self, batch: ImageTextBatch, batch_idx: int) -> CaptionOutput:
        """Do the same as in validation; the metrics' names begin with ``test``."""
        return self._evaluate(batch, "test")

    @final
    def predict_step(self, batch: ImageTextBatch, batch_idx: int) -> CaptionOutput:
        """Generate captions."""
        captions = tuple(self.caption(batch.image, batch.prompts or None))
        return CaptionOutput(keys=batch.keys, captions=captions, references=batch.references)

    def _evaluate(self, batch: ImageTextBatch, stage: str) -> CaptionOutput:
        # Captions are generated here and not in a callback: only a step runs inside the strategy's forward, where FSDP
        # gathers the parameters.
        with self._without_compilation():
            visual = self.encode_images(batch.image)
            self.token_loss.update(batch.keys, self.compute_loss(visual, batch))
            captions = tuple(self.generate(visual, batch.prompts or None))
        self.log(f"{stage}/loss", self.token_loss, on_step=False, on_epoch=True, prog_bar=True)
        return CaptionOutput(keys=batch.keys, captions=captions, references=batch.references)

    def _without_compilation(self) -> AbstractContextManager[None]:
        # Generation, with single tokens and growing caches, would compile again and again.
        return torch.compiler.set_stance("force_eager") if self.compile_network else nullcontext()

    def shard(self, mesh: DeviceMesh) -> None:
        """Shard the resampler, the decoder and the encoder's blocks over the mesh."""
        policy = choose_precision(self.trainer.precision)
        shard_frozen(self.image_encoder, mesh)
        shard_component(self.resampler, mesh, policy=policy)
        shard_component(self.decoder, mesh, entries=("loss", "generate", "sample"), policy=policy)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Run when a checkpoint is saved: adds the fingerprint of the vocabulary, which is not part of it."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["vocabulary"] = self.decoder.fingerprint_vocabulary()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Run when a checkpoint is loaded: raises ``ValueError`` if it was trained with another vocabulary."""
        super().on_load_checkpoint(checkpoint)
        saved, present = checkpoint.get("vocabulary"), self.decoder.fingerprint_vocabulary()
        if saved is not None and present is not None and saved != present:
            raise ValueError(
                f"The decoder's vocabulary has the fingerprint {present}, but the checkpoint was trained with "
                f"{saved!r:.40}; expected the same vocabulary, because the weights depend on it. Restore the tokenizer "
                "of the training run, or train again."
            )


def source_losses(sums: Tensor, counts: Tensor, sources: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the mean loss per target token (nats) of each source in a batch.

    Example:
        >>> source_losses(torch.tensor([2.0, 6.0, 2.0]), torch.tensor([1, 2, 1]), ("coco", "synthetic", "coco"))
        {'coco': tensor(2.), 'synthetic': tensor(3.)}
    """
    losses = {}
    for source in sorted(set(sources)):
        rows = torch.tensor([row for row, name in enumerate(sources) if name == source])
        selected = to_device(rows, sums.device)
        losses[source] = sums[selected].sum() / counts[selected].sum()
    return losses
