"""Captions of the images in shards by a trained captioner, for `synth2 predict`."""

from dataclasses import asdict, replace
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from synth2_lightning.io.fingerprints import fingerprint_weights
from synth2_lightning.io.locations import resolve
from synth2_lightning.modules.captioner_checkpoint import read_captioner
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.modules.prediction import PredictionModule
from synth2_lightning.types import GenerationSettings, TokenizedImages


class RecaptioningModule(PredictionModule):
    """Replaces the captions of images in shards by a captioner's; ``ShardWriterCallback`` writes them.

    :class:`~synth2_lightning.modules.reassignment.ReassignmentModule` compares them with other captions.

    Args:
        checkpoint: Location of a checkpoint of a :class:`~synth2_lightning.modules.captioning.VisionLanguageModule`,
            written by ``synth2 fit``. Use a captioner that was trained on photos only: one that was trained on the
            generated images fits their errors.
        generation: Decoding settings; ``None`` uses those of the checkpoint.

    Raises:
        FileNotFoundError: If the checkpoint is missing, when the weights are read.
        ValueError: If it does not describe its components, when the weights are read.
    """

    def __init__(self, checkpoint: str, generation: GenerationSettings | None = None) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.generation = generation
        self.captioner: VisionLanguageModule | None = None
        self._provenance: dict[str, Any] = {}

    def configure_model(self) -> None:
        """Load the captioner."""
        if self.captioner is not None:
            return
        rank_zero_info(f"Loading captioner: {self.checkpoint}.")
        captioner = read_captioner(resolve(self.checkpoint, "captioner's checkpoint")).eval().requires_grad_(False)
        if self.generation is not None:
            captioner.generation = self.generation
        self._provenance = {
            "captioner": fingerprint_weights("captioner", captioner),
            "generation": asdict(captioner.generation),
        }
        self.captioner = captioner

    def provenance(self) -> dict[str, Any]:
        """Return the fingerprint of the captioner and its decoding settings."""
        return self._provenance

    def predict_step(self, batch: object, batch_idx: int) -> TokenizedImages:
        """Return the batch with one caption per image and without scores; none for an image with an empty caption."""
        batch = self.expect(batch, TokenizedImages, "ShardDataModule")
        if self.captioner is None:
            raise RuntimeError("The captioner is not loaded; call configure_model() first.")
        captions = self.captioner.caption(batch.tokens)
        return replace(batch, captions=tuple((text,) if text.strip() else () for text in captions), scores=())
