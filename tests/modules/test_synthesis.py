import re
from collections.abc import Sequence

import pytest
import torch

from synth2_lightning.modules.synthesis import SynthesisModule
from synth2_lightning.testing import TinyImageGenerator, TinyTextEncoder, tiny_batch
from synth2_lightning.types import CaptionBatch, Condition, SampleInfo, VQTokens

SAMPLES = (SampleInfo("k0", "synthetic", "fox", 3), SampleInfo("k1", "synthetic", "", 4))
BATCH = CaptionBatch((("a fox",), ("an otter", "an animal")), (("a fox",), ("an otter",)), SAMPLES)


class Lazy(TinyImageGenerator):
    def generate(self, captions: Sequence[Condition], seeds: Sequence[int]) -> VQTokens:
        return super().generate(captions[1:], seeds[1:])


def test_captions_become_tokens_with_the_same_keys() -> None:
    module = SynthesisModule(TinyImageGenerator())
    module.configure_model()
    images = module.predict_step(BATCH, 0)

    assert (images.keys, images.sources) == (BATCH.keys, BATCH.sources)
    assert images.captions == (("a fox",), ("an otter", "an animal"))
    assert images.samples == SAMPLES
    assert torch.equal(images.tokens.ids, TinyImageGenerator().generate(["a fox", "an otter"], [3, 4]).ids)
    assert images.codebook_size == 16


class Cutting(TinyImageGenerator):
    """Truncates captions, and has a component that truncates them."""

    num_truncated = 2

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = TinyTextEncoder()
        self.text_encoder.num_truncated = 3  # type: ignore[assignment]


def test_truncated_captions_are_counted_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    SynthesisModule(TinyImageGenerator()).on_predict_end()
    assert caplog.messages == []
    SynthesisModule(Cutting()).on_predict_end()
    (message,) = caplog.messages
    assert re.match(r"5 captions were truncated.*max_length", message)


def test_provenance_names_the_generator_and_its_settings() -> None:
    assert SynthesisModule(TinyImageGenerator(salt=3)).provenance() == {
        "generator_class": "TinyImageGenerator",
        "codebook": "tiny-16:00000000",
        "sampler": {"salt": 3},
    }


def test_batches_of_images_are_refused() -> None:
    with pytest.raises(TypeError, match=r"SynthesisModule.*ImageTextBatch.*CaptionBatch.*Captio"):
        SynthesisModule(TinyImageGenerator()).predict_step(tiny_batch(), 0)


def test_another_number_of_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Lazy.* 1 .* 2 "):
        SynthesisModule(Lazy()).predict_step(BATCH, 0)
