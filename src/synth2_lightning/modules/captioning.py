"""The captioner: frozen image encoder, resampler, language decoder (Synth², arXiv 2403.07750)."""

from dataclasses import asdict
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import AdamW

from synth2_lightning.interfaces import ImageEncoder, LanguageDecoder, ResamplerFactory
from synth2_lightning.metrics.token_loss import MeanTokenLoss
from synth2_lightning.modules.base import BaseModule, OptimizerFactory, SchedulerFactory, source_losses
from synth2_lightning.modules.ranks import mean_over_ranks
from synth2_lightning.modules.sharding import choose_precision, shard_frozen, shard_part
from synth2_lightning.nn.gated_attention import GatedCrossAttention
from synth2_lightning.types import CaptionOutput, GenerationSettings, ImageInput, ImageTextBatch, TokenLoss


class VisionLanguageModule(BaseModule):
    """A captioner that learns from photographs, image tokens and ready-made embeddings alike.

    Two doors for new ideas. *Inject*: a new connector or decoder is a class under ``Resampler`` or
    ``LanguageDecoder`` in your own package and one ``class_path`` in YAML. *Subclass*: override
    :meth:`compute_loss` for another objective, :meth:`respond` for another answer; the order of a step stays.

    Args:
        image_encoder: Frozen; turns any kind of picture into ``(batch, tokens, dim)``.
        resampler: Factory of the connector, called with the encoder's and the decoder's width.
        decoder: Turns visual tokens into words.
        generation: How captions are decoded in validation, test and predict.
        optimizer: See :class:`BaseModule`.
        lr_scheduler: See :class:`BaseModule`.
        compile_trained: Run the resampler and the gated blocks through ``torch.compile``.

    Example:
        >>> from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch
        >>> module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler, TinyDecoder())
        >>> module.look(tiny_batch().image).shape
        torch.Size([2, 4, 8])
    """

    frozen_parts: ClassVar[tuple[str, ...]] = ("image_encoder",)

    def __init__(
        self,
        image_encoder: ImageEncoder,
        resampler: ResamplerFactory,
        decoder: LanguageDecoder,
        generation: GenerationSettings = GenerationSettings(),  # noqa: B008 - frozen, and read by the command line
        optimizer: OptimizerFactory = AdamW,
        lr_scheduler: SchedulerFactory | None = None,
        compile_trained: bool = False,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        self.image_encoder = image_encoder.requires_grad_(False)
        self.resampler = resampler(image_encoder.embed_dim, decoder.embed_dim)
        self.decoder = decoder
        self.generation = generation
        self.token_loss = MeanTokenLoss()
        self._compile_trained = compile_trained

    def configure_model(self) -> None:
        """Bring the weights, then shard or compile the trained parts where that was asked for."""
        super().configure_model()
        if self._compile_trained:
            self.resampler.compile()
            for part in self.decoder.modules():
                if isinstance(part, GatedCrossAttention):
                    part.compile()

    def shard(self, mesh: DeviceMesh) -> None:
        """Spread resampler and decoder over the mesh, and the encoder's blocks."""
        policy = choose_precision(self.trainer.precision)
        shard_frozen(self.image_encoder, mesh)
        shard_part(self.resampler, mesh, policy=policy)
        shard_part(self.decoder, mesh, entries=("loss", "generate"), policy=policy)

    def look(self, image: ImageInput) -> Float[Tensor, "batch queries width"]:
        """Turn pictures of any kind into visual tokens; no gradient reaches the encoder."""
        with torch.no_grad():
            embeddings = self.image_encoder(image)
        visual: Tensor = self.resampler(embeddings)
        return visual

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the fingerprint of the vocabulary, which lies in a folder of its own."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["vocabulary"] = self.decoder.fingerprint_vocabulary()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights that were trained with other words.

        Raises:
            ValueError: If the vocabulary is another one.
        """
        super().on_load_checkpoint(checkpoint)
        saved, present = checkpoint.get("vocabulary"), self.decoder.fingerprint_vocabulary()
        if saved is not None and present is not None and saved != present:
            raise ValueError(
                f"The vocabulary has the fingerprint {present}, that of the checkpoint {saved!r:.40}: its weights "
                "belong to other words. Expected the tokenizer of the training: restore its folder, or train anew."
            )

    def compute_loss(self, visual: Float[Tensor, "batch queries width"], batch: ImageTextBatch) -> TokenLoss:
        """First door: the objective. By default the likelihood of the caption, given its picture."""
        return self.decoder.loss(visual, batch.captions)

    def respond(self, visual: Float[Tensor, "batch queries width"], batch: ImageTextBatch) -> tuple[str, ...]:
        """Second door: the answer. By default a caption."""
        return tuple(self.decoder.generate(visual, self.generation))

    def protocol(self) -> dict[str, Any]:
        """What a reader must know about how captions were written; goes into the score's protocol card."""
        return {
            "decoder": type(self.decoder).__name__,
            "prompt": getattr(self.decoder, "prompt", ""),
            "generation": asdict(self.generation),
        }

    @final
    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """Learn from one batch; logs the loss and the share of every source."""
        losses = self.compute_loss(self.look(batch.image), batch)
        loss, mean = mean_over_ranks(losses)
        self.log("train/loss", mean, prog_bar=True, batch_size=len(batch))
        for source, value in source_losses(losses.sums.detach(), losses.counts, batch.sources).items():
            share = batch.sources.count(source) / len(batch)
            # In the bar even where it is the only source: Lightning refuses a name that is logged in two ways, and a
            # share that falls or rises over an epoch has batches of one source and of two.
            self.log(f"train/loss_{source}", value, prog_bar=True, batch_size=len(batch))
            self.log(f"data/share_{source}", share, batch_size=len(batch))
        return loss

    @final
    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> CaptionOutput:
        """Measure the loss and write captions; the CIDEr callback scores them."""
        return self._evaluate(batch, "val")

    @final
    def test_step(self, batch: ImageTextBatch, batch_idx: int) -> CaptionOutput:
        """As in validation, under the name ``test``."""
        return self._evaluate(batch, "test")

    @final
    def predict_step(self, batch: ImageTextBatch, batch_idx: int) -> CaptionOutput:
        """Write captions."""
        captions = self.respond(self.look(batch.image), batch)
        loss = torch.zeros((), device=self.device)
        return CaptionOutput(loss=loss, keys=batch.keys, captions=captions, references=batch.references)

    def _evaluate(self, batch: ImageTextBatch, stage: str) -> CaptionOutput:
        # Here and not in a callback, because only a step runs inside the strategy's forward: under FSDP the
        # parameters are still sharded anywhere else.
        visual = self.look(batch.image)
        losses = self.compute_loss(visual, batch)
        self.token_loss.update(batch.keys, losses)
        self.log(f"{stage}/loss", self.token_loss, on_step=False, on_epoch=True, prog_bar=True)
        captions = self.respond(visual, batch)
        return CaptionOutput(loss=losses.mean(), keys=batch.keys, captions=captions, references=batch.references)
