from pathlib import Path

import pytest
import torch

from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.modules.recaptioning import RecaptioningModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch
from synth2_lightning.types import GenerationSettings, SampleInfo, TokenizedImages, VQTokens

IMAGES = TokenizedImages(
    samples=(SampleInfo("k0", "synthetic", "field", 3), SampleInfo("k1", "synthetic", "", 4)),
    captions=(("old",), ("older", "oldest")),
    tokens=VQTokens(torch.tensor([14, 1])[:, None, None].expand(2, 4, 1), TinyImageTokenizer.codebook),
    codebook_size=16,
    scores=((1.0,), (2.0, 3.0)),
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    torch.manual_seed(0)
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    parts = {"image_encoder": "TinyImageTokenizer", "resampler": "TinyResampler", "decoder": "TinyDecoder"}
    settings = {name: {"class_path": f"synth2_lightning.testing.{part}"} for name, part in parts.items()}
    settings["_instantiator"] = "lightning.pytorch.cli.instantiate_module"  # type: ignore[assignment]
    content = {"state_dict": module.state_dict(), "hyper_parameters": settings}
    torch.save(content | {"pytorch-lightning_version": "2.6.6"}, tmp_path / "captioner.ckpt")
    return str(tmp_path / "captioner.ckpt")


def recaption(module: RecaptioningModule) -> TokenizedImages:
    module.configure_model()
    module.configure_model()
    return module.predict_step(IMAGES, 0)


def test_captions_are_those_of_the_captioner(checkpoint: str) -> None:
    images = recaption(RecaptioningModule(checkpoint))
    captioner = VisionLanguageModule.load_from_checkpoint(checkpoint, weights_only=True)
    assert images.captions == tuple((text,) for text in captioner.caption(IMAGES.tokens))
    assert images.samples == IMAGES.samples
    assert images.tokens is IMAGES.tokens
    assert images.scores == ()


def prefer(checkpoint: str, word: str) -> None:
    """Make a word the most probable one at all positions."""
    saved = torch.load(checkpoint, weights_only=True)
    saved["state_dict"]["decoder.head.bias"].view(4, 5)[:, TinyDecoder.words.index(word)] += 100.0
    torch.save(saved, checkpoint)


def test_an_image_with_an_empty_caption_has_none(checkpoint: str) -> None:
    prefer(checkpoint, "</s>")
    assert recaption(RecaptioningModule(checkpoint)).captions == ((), ())


def test_decoding_settings_are_part_of_the_provenance(checkpoint: str) -> None:
    prefer(checkpoint, "field")
    modules = [RecaptioningModule(checkpoint), RecaptioningModule(checkpoint, GenerationSettings(max_new_tokens=1))]
    captions = [recaption(module).captions for module in modules]
    assert captions == [(("field field field field",),) * 2, (("field",),) * 2]
    whole, first = (module.provenance() for module in modules)
    assert whole["captioner"] == first["captioner"]
    assert (whole["generation"]["max_new_tokens"], first["generation"]["max_new_tokens"]) == (30, 1)


def test_other_batches_and_use_before_loading_are_refused(checkpoint: str) -> None:
    with pytest.raises(TypeError, match=r"RecaptioningModule.*ImageTextBatch.*TokenizedImages.*Shard"):
        RecaptioningModule(checkpoint).predict_step(tiny_batch(), 0)
    with pytest.raises(RuntimeError, match=r"configure_model\(\)"):
        RecaptioningModule(checkpoint).predict_step(IMAGES, 0)
