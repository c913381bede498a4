"""Class names become captions: the head of the river, run by `synth2 predict` (Synth², arXiv 2403.07750)."""

from typing import Any

from lightning.pytorch import LightningModule

from synth2_lightning.interfaces import CaptionGenerator
from synth2_lightning.types import CaptionBatch, PromptBatch, WrittenCaptions


class CaptionWritingModule(LightningModule):
    """Has a language model answer batches of prompts, for ``CaptionWriterCallback`` to write.

    Args:
        generator: Writes the captions.

    Example:
        >>> from synth2_lightning.testing import TinyCaptionGenerator
        >>> from synth2_lightning.types import ChatMessage
        >>> prompts = ((ChatMessage("user", "dog"),),)
        >>> batch = PromptBatch(prompts, ("dog-0",), ("pets",), ("dog",), ("class-based@1",), (1234,))
        >>> CaptionWritingModule(TinyCaptionGenerator()).predict_step(batch, 0).completions[0].text
        'A picture of dog number 234.'
    """

    def __init__(self, generator: CaptionGenerator) -> None:
        super().__init__()
        self.generator = generator.requires_grad_(False)

    def configure_model(self) -> None:
        """Bring the language model, or find its server."""
        self.generator.load()

    def provenance(self) -> dict[str, Any]:
        """Give what decides the captions besides prompt and seed."""
        return {"generator_class": type(self.generator).__name__, **self.generator.provenance()}

    def predict_step(self, batch: PromptBatch | CaptionBatch, batch_idx: int) -> WrittenCaptions:
        """Write a caption per prompt.

        Raises:
            TypeError: If the batch does not hold prompts.
            ValueError: If the generator gives more or fewer answers than it was asked for.
        """
        if not isinstance(batch, PromptBatch):
            raise TypeError(
                f"CaptionWritingModule was given {type(batch).__name__}; expected PromptBatch. Use a ConceptDataModule."
            )
        completions = self.generator.generate(batch.prompts, batch.seeds)
        if len(completions) != len(batch):
            raise ValueError(
                f"{type(self.generator).__name__} gave {len(completions)} answers to {len(batch)} prompts; expected "
                "one of each. The generator is at fault."
            )
        return WrittenCaptions(batch, tuple(completions), self.generator.model_name)
