"""Abstract base classes of the pluggable components."""

from synth2_lightning.interfaces.data import (
    CaptionFilter,
    CaptionSource,
    ConceptSampler,
    ConceptSource,
    HasInputs,
    HasProvenance,
    HasTrainingCaptions,
    ImageTextSource,
    Judge,
    Skippable,
)
from synth2_lightning.interfaces.language import CaptionGenerator, LanguageDecoder, PromptedLanguageModel, TextEncoder
from synth2_lightning.interfaces.loading import FrozenModule, Loadable
from synth2_lightning.interfaces.stopping import StopsTogether
from synth2_lightning.interfaces.vision import (
    ImageEncoder,
    ImageGenerator,
    ImageTextEncoder,
    ImageTokenizer,
    PairScorer,
    Resampler,
)

__all__ = [
    "CaptionFilter",
    "CaptionGenerator",
    "CaptionSource",
    "ConceptSampler",
    "ConceptSource",
    "FrozenModule",
    "HasInputs",
    "HasProvenance",
    "HasTrainingCaptions",
    "ImageEncoder",
    "ImageGenerator",
    "ImageTextEncoder",
    "ImageTextSource",
    "ImageTokenizer",
    "Judge",
    "LanguageDecoder",
    "Loadable",
    "PairScorer",
    "PromptedLanguageModel",
    "Resampler",
    "Skippable",
    "StopsTogether",
    "TextEncoder",
]
