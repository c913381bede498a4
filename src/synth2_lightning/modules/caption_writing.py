"""Generation of captions from class names with a language model (Synth², arXiv 2403.07750)."""

from typing import Any

from synth2_lightning.interfaces import CaptionGenerator
from synth2_lightning.modules.prediction import PredictionModule
from synth2_lightning.types import PromptBatch, WrittenCaptions


class CaptionWritingModule(PredictionModule):
    """Generates an answer to every prompt of a batch, which ``CaptionWriterCallback`` writes.

    Args:
        generator: Generates the answers.

    Example:
        >>> from synth2_lightning.testing import TinyCaptionGenerator
        >>> from synth2_lightning.types import ChatMessage, SampleInfo
        >>> prompts = ((ChatMessage("user", "dog"),),)
        >>> batch = PromptBatch(prompts, (SampleInfo("dog-0", "pets", "dog", 1234),), ("class-based@1",))
        >>> CaptionWritingModule(TinyCaptionGenerator()).predict_step(batch, 0).completions[0].text
        'An image of dog number 234.'
    """

    def __init__(self, generator: CaptionGenerator) -> None:
        super().__init__()
        self.generator = generator.requires_grad_(False)

    def provenance(self) -> dict[str, Any]:
        """Return the settings that determine the captions, besides prompt and seed."""
        return {"generator_class": type(self.generator).__name__, **self.generator.provenance()}

    def predict_step(self, batch: object, batch_idx: int) -> WrittenCaptions:
        """Generate one answer per prompt."""
        batch = self.expect(batch, PromptBatch, "ConceptDataModule")
        completions = self.generator.generate(batch.prompts, batch.seeds)
        if len(completions) != len(batch):
            raise ValueError(
                f"{type(self.generator).__name__} returned {len(completions)} answers to {len(batch)} prompts; "
                "expected one per prompt. Fix its generate()."
            )
        return WrittenCaptions(batch, tuple(completions), self.generator.model_name)
