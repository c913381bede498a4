"""Tiny components for tests, and contract checks of the interfaces."""

from synth2_lightning.testing.checks import (
    check_caption_generator,
    check_image_encoder,
    check_image_generator,
    check_image_tokenizer,
    check_pair_scorer,
    check_text_encoder,
)
from synth2_lightning.testing.components import (
    TinyCaptionGenerator,
    TinyDecoder,
    TinyImageGenerator,
    TinyImageTextEncoder,
    TinyImageTokenizer,
    TinyPairScorer,
    TinyResampler,
    TinyTextEncoder,
    tiny_batch,
)

__all__ = [
    "TinyCaptionGenerator",
    "TinyDecoder",
    "TinyImageGenerator",
    "TinyImageTextEncoder",
    "TinyImageTokenizer",
    "TinyPairScorer",
    "TinyResampler",
    "TinyTextEncoder",
    "check_caption_generator",
    "check_image_encoder",
    "check_image_generator",
    "check_image_tokenizer",
    "check_pair_scorer",
    "check_text_encoder",
    "tiny_batch",
]
