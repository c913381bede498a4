from collections.abc import Sequence

import pytest
import torch

from synth2_lightning.modules.synthesis import SynthesisModule
from synth2_lightning.testing import TinyImageGenerator, TinyTextEncoder, tiny_batch
from synth2_lightning.types import CaptionBatch, ImageEmbeddings, VQTokens

BATCH = CaptionBatch(("a fox", "an otter"), ("k0", "k1"), ("synthetic",) * 2, ("fox", ""), (3, 4))


class Embedding(TinyImageGenerator):
    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> ImageEmbeddings:  # type: ignore[override]
        return ImageEmbeddings(torch.zeros(len(captions), 4, 6), "tiny")


class Lazy(TinyImageGenerator):
    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> VQTokens:
        return super().generate(captions[1:], seeds[1:])


def test_captions_become_tokens_that_keep_their_names() -> None:
    module = SynthesisModule(TinyImageGenerator())
    module.configure_model()
    images = module.predict_step(BATCH, 0)

    assert (images.keys, images.sources) == (BATCH.keys, BATCH.sources)
    assert images.captions == (("a fox",), ("an otter",))
    assert (images.class_names, images.seeds) == (("fox", ""), (3, 4))
    assert torch.equal(images.tokens.ids, TinyImageGenerator().generate(["a fox", "an otter"], [3, 4]).ids)
    assert images.codebook_size == 16


class Cutting(TinyImageGenerator):
    """Cuts captions, and has a part that does."""

    num_truncated = 2

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = TinyTextEncoder()
        self.text_encoder.num_truncated = 3  # type: ignore[assignment]


def test_captions_that_were_cut_are_counted_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    SynthesisModule(TinyImageGenerator()).on_predict_end()
    assert caplog.messages == []
    SynthesisModule(Cutting()).on_predict_end()
    (message,) = caplog.messages
    assert message.startswith("5 captions were longer than the text encoder reads: their pictures know nothing of")


def test_provenance_names_the_generator_and_what_it_says() -> None:
    assert SynthesisModule(TinyImageGenerator(salt=3)).provenance() == {
        "generator_class": "TinyImageGenerator",
        "codebook": "tiny-16:00000000",
        "sampler": {"salt": 3},
    }


def test_pictures_are_no_captions() -> None:
    with pytest.raises(
        TypeError, match=r"SynthesisModule was given ImageTextBatch; expected CaptionBatch. Use a Captio"
    ):
        SynthesisModule(TinyImageGenerator()).predict_step(tiny_batch(), 0)


def test_what_shards_cannot_hold_is_refused() -> None:
    with pytest.raises(
        TypeError, match="Embedding made ImageEmbeddings; expected VQTokens, because shards hold codebook"
    ):
        SynthesisModule(Embedding()).predict_step(BATCH, 0)


def test_another_number_of_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="Lazy made 1 pictures of 2 captions; expected one of each"):
        SynthesisModule(Lazy()).predict_step(BATCH, 0)
