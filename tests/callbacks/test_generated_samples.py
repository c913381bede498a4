import logging
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

from synth2_lightning.callbacks.generated_samples import GeneratedSamplesCallback
from synth2_lightning.encoders.vqgan import VQGANTokenizer
from synth2_lightning.interfaces import ImageTokenizer
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.modules.muse import GenerationOutput, MuseModule
from synth2_lightning.nn.maskgit import MaskGit
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, TinyTextEncoder, tiny_batch
from synth2_lightning.types import VQTokens


def make_module(tokenizer: ImageTokenizer) -> MuseModule:
    return MuseModule(tokenizer, TinyTextEncoder(), partial(MaskGit, width=16, depth=1, num_heads=2))


def make_output(tokens: VQTokens) -> GenerationOutput:
    return GenerationOutput(captions=("a red circle", "a blue dot"), generated=tokens, real=tokens)


def test_generated_images_are_drawn_beside_the_real_ones() -> None:
    tokenizer = VQGANTokenizer("package://synth2_lightning/scenes/tokenizer")
    tokenizer.load()
    callback = GeneratedSamplesCallback(num_images=1)
    callback.on_validation_epoch_start(Trainer(logger=False), make_module(tokenizer))
    real, other = (VQTokens(torch.full((2, 64, 1), code), tokenizer.codebook) for code in (3, 300))
    output = GenerationOutput(captions=("a red circle", "a blue dot"), generated=other, real=real)
    (tile,) = callback.draw_tiles(output, tiny_batch(2), num_tiles=1)
    left, right = tile.getpixel((tile.width // 4, 60)), tile.getpixel((3 * tile.width // 4, 60))
    assert left != right


def test_tokenizers_without_a_decoder_draw_nothing_and_warn_once(caplog: pytest.LogCaptureFixture) -> None:
    module = make_module(TinyImageTokenizer())
    callback = GeneratedSamplesCallback()
    callback.on_validation_epoch_start(Trainer(logger=False), module)
    tokens = VQTokens(torch.zeros(2, 4, 1, dtype=torch.long), TinyImageTokenizer.codebook)
    with caplog.at_level(logging.WARNING):
        assert callback.draw_tiles(make_output(tokens), tiny_batch(2), num_tiles=16) == []
    assert "TinyImageTokenizer has no decoder" in caplog.text
    assert callback.num_images == 0


def test_other_modules_are_refused() -> None:
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    with pytest.raises(TypeError, match=r"VisionLanguageModule.*tokenizer.*MuseModule"):
        GeneratedSamplesCallback().on_validation_epoch_start(Trainer(logger=False), module)
