"""Core data types shared across the package."""

from synth2_lightning.types.batches import (
    CaptionBatch,
    ConceptCaptionBatch,
    ImageTextBatch,
    PromptBatch,
    SampleBatch,
    SampleInfo,
    TokenizedImages,
    WrittenCaptions,
)
from synth2_lightning.types.captions import (
    CLASS_NAME_SEPARATOR,
    CaptionRecord,
    ChatMessage,
    Completion,
    Concept,
    Condition,
    GenerationSettings,
    Prompt,
    Verdict,
)
from synth2_lightning.types.images import ImageInput, MixedImages, Pixels, VQTokens
from synth2_lightning.types.losses import CaptionOutput, Quantization, Reconstruction, SampledTexts, TokenLoss

__all__ = [
    "CLASS_NAME_SEPARATOR",
    "CaptionBatch",
    "CaptionOutput",
    "CaptionRecord",
    "ChatMessage",
    "Completion",
    "Concept",
    "ConceptCaptionBatch",
    "Condition",
    "GenerationSettings",
    "ImageInput",
    "ImageTextBatch",
    "MixedImages",
    "Pixels",
    "Prompt",
    "PromptBatch",
    "Quantization",
    "Reconstruction",
    "SampleBatch",
    "SampleInfo",
    "SampledTexts",
    "TokenLoss",
    "TokenizedImages",
    "VQTokens",
    "Verdict",
    "WrittenCaptions",
]
