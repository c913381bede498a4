from pathlib import Path

import datasets
import pytest
import torch

from controls import load_shards
from pair_likelihood import measure, summarize
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.modules.likelihood_ratio import LikelihoodRatioScorer
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler
from synth2_lightning.types import SampleInfo, TokenizedImages, VQTokens

CAPTIONS = ("a field", "a dark field", "a bright field", "field")


@torch.no_grad()
def test_the_two_figures_add_up_to_the_loss_with_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    samples = tuple(SampleInfo(str(number), "tiny") for number in range(4))
    ids = torch.tensor([[1, 2, 1, 2], [1, 1, 2, 2], [11, 12, 12, 11], [3, 1, 2, 1]])[..., None]
    tokens = VQTokens(ids, TinyImageTokenizer.codebook)
    writer = ShardWriter(tmp_path / "shards")
    writer.append(TokenizedImages(samples, tuple((text, "not measured") for text in CAPTIONS), tokens, 16))
    writer.close()
    finish(tmp_path / "shards", {})
    captioner = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder()).eval()
    parts = {"image_encoder": "TinyImageTokenizer", "resampler": "TinyResampler", "decoder": "TinyDecoder"}
    settings = {name: {"class_path": f"synth2_lightning.testing.{part}"} for name, part in parts.items()}
    settings["_instantiator"] = "lightning.pytorch.cli.instantiate_module"  # type: ignore[assignment]
    checkpoint = {"state_dict": captioner.state_dict(), "hyper_parameters": settings}
    torch.save(checkpoint | {"pytorch-lightning_version": "2.6.6"}, tmp_path / "captioner.ckpt")
    scorer = LikelihoodRatioScorer(str(tmp_path / "captioner.ckpt"), str(tmp_path / "shards"))
    scorer.load()

    figures = measure(scorer, load_shards(tmp_path / "shards"), first=1)

    loss = captioner.decoder.loss(captioner.encode_images(VQTokens(ids[1:], tokens.codebook)), CAPTIONS[1:])
    assert figures["without_image"] - figures["ratio"] == pytest.approx((loss.sums / loss.counts).numpy(), abs=1e-5)
    value, low, high = summarize(figures["without_image"])
    assert low <= value <= high
    assert value == pytest.approx(figures["without_image"].mean(), abs=1e-4)
