from pathlib import Path

import datasets
import pytest
import torch
from torch import Tensor

from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.modules.likelihood_ratio import LikelihoodRatioScorer
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, check_pair_scorer, tiny_batch
from synth2_lightning.types import SampleInfo, TokenizedImages, VQTokens

CAPTIONS = ["a bright field", "a dark field", "field", "a bright"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A captioner trained on dark and bright images, and reference images, one of them twice."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.05)
    for step in range(60):
        optimizer.zero_grad()
        module.training_step(tiny_batch(16, seed=step), step).backward()
        optimizer.step()
    parts = {"image_encoder": "TinyImageTokenizer", "resampler": "TinyResampler", "decoder": "TinyDecoder"}
    settings = {name: {"class_path": f"synth2_lightning.testing.{part}"} for name, part in parts.items()}
    settings["_instantiator"] = "lightning.pytorch.cli.instantiate_module"  # type: ignore[assignment]
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": settings}
    torch.save(checkpoint | {"pytorch-lightning_version": "2.6.6"}, tmp_path / "captioner.ckpt")
    ids = reference_ids()
    write_shards(tmp_path / "references", torch.cat([ids, ids[-1:]]))
    return tmp_path


def reference_ids() -> Tensor:
    """Dark and bright images, all different."""
    return torch.tensor([[1, 2, 1, 2], [1, 1, 2, 2], [2, 2, 1, 1], [11, 12, 12, 11], [12, 12, 11, 11], [3, 1, 2, 1]])[
        ..., None
    ]


def write_shards(folder: Path, ids: Tensor) -> None:
    samples = tuple(SampleInfo(str(number), "tiny") for number in range(len(ids)))
    writer = ShardWriter(folder)
    captions = (("a field",),) * len(ids)
    writer.append(TokenizedImages(samples, captions, VQTokens(ids, TinyImageTokenizer.codebook), 16))
    writer.close()
    finish(folder, {})


def make(folder: Path, num_references: int = 7) -> LikelihoodRatioScorer:
    return LikelihoodRatioScorer(str(folder / "captioner.ckpt"), str(folder / "references"), num_references)


def tokens(num_images: int = 4, seed: int = 5) -> VQTokens:
    return TinyImageTokenizer().tokenize(tiny_batch(num_images, seed).image)  # type: ignore[arg-type]


def test_scores_are_functions_of_the_pair(folder: Path) -> None:
    check_pair_scorer(make(folder), tokens(), CAPTIONS)


@torch.no_grad()
def test_a_score_is_the_log_ratio_per_token(folder: Path) -> None:
    scorer = make(folder)
    scorer.load()
    captioner = VisionLanguageModule.load_from_checkpoint(folder / "captioner.ckpt", weights_only=True)

    def likelihood(ids: Tensor, caption: str) -> Tensor:
        visual = captioner.encode_images(VQTokens(ids[None], TinyImageTokenizer.codebook))
        return (-captioner.decoder.loss(visual, [caption]).sums).double().exp()

    images = tokens()
    for ids, caption, score in zip(images.ids, CAPTIONS, scorer.score(images, CAPTIONS), strict=True):
        marginal = torch.stack([likelihood(other, caption) for other in reference_ids()]).mean()
        expected = (likelihood(ids, caption) / marginal).log() / (len(caption.split()) + 1)  # and the end
        assert float(score) == pytest.approx(float(expected), abs=1e-4)


@torch.no_grad()
def test_a_reference_image_is_excluded_from_its_own_references(folder: Path) -> None:
    scorer = make(folder)
    scorer.load()
    ids = reference_ids()
    assert scorer.reference_ids.shape == (6, 4, 1)  # without the one that comes twice
    (score,) = scorer.score(VQTokens(ids[:1], TinyImageTokenizer.codebook), ["a dark field"])

    write_shards(folder / "others", ids[1:])
    others = LikelihoodRatioScorer(str(folder / "captioner.ckpt"), str(folder / "others"), 5)
    others.load()
    (expected,) = others.score(VQTokens(ids[:1], TinyImageTokenizer.codebook), ["a dark field"])
    assert float(score) == pytest.approx(float(expected), abs=1e-5)


def test_captions_score_higher_with_their_own_image(folder: Path) -> None:
    scorer = make(folder)
    scorer.load()
    batch = tiny_batch(32, seed=123)
    swapped = ["a dark field" if "bright" in caption else "a bright field" for caption in batch.captions]
    assert (scorer.score(tokens(32, 123), batch.captions) > scorer.score(tokens(32, 123), swapped) + 0.3).all()


def test_provenance_names_captioner_and_references(folder: Path) -> None:
    scorer = make(folder)
    scorer.load()
    provenance = scorer.provenance()
    assert set(provenance) == {"captioner", "references", "num_references"}
    assert provenance["captioner"].startswith("captioner:")
    assert provenance["num_references"] == 6

    fewer = make(folder, num_references=3)
    fewer.load()
    even = reference_ids()[[0, 2, 4]]  # of 7 rows
    assert torch.equal(fewer.reference_ids, torch.unique(even, dim=0))
    assert fewer.provenance()["references"] != provenance["references"]
    assert fewer.provenance()["captioner"] == provenance["captioner"]
    saved = torch.load(folder / "captioner.ckpt", weights_only=True)
    saved["state_dict"]["decoder.head.bias"] += 1
    torch.save(saved, folder / "captioner.ckpt")
    other = make(folder)
    other.load()
    assert other.provenance()["captioner"] != provenance["captioner"]


def test_references_are_taken_from_the_first_rows(folder: Path) -> None:
    scorer = LikelihoodRatioScorer(str(folder / "captioner.ckpt"), str(folder / "references"), 3, limit=3)
    scorer.load()
    assert torch.equal(scorer.reference_ids, torch.unique(reference_ids()[:3], dim=0))


def test_too_few_references_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"num_references=1.*2 or more"):
        LikelihoodRatioScorer("captioner.ckpt", "shards", num_references=1)
    write_shards(folder / "alike", torch.zeros(3, 4, 1, dtype=torch.long))
    with pytest.raises(ValueError, match=r"only one.*2 or more"):
        LikelihoodRatioScorer(str(folder / "captioner.ckpt"), str(folder / "alike")).load()


def test_a_checkpoint_that_is_missing_or_has_no_run_file_is_named(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint.*'gone\.ckpt'"):
        LikelihoodRatioScorer("gone.ckpt", str(folder / "references")).load()
    saved = torch.load(folder / "captioner.ckpt", weights_only=True)
    torch.save(saved | {"hyper_parameters": {}}, folder / "captioner.ckpt")
    with pytest.raises(ValueError, match=r"checkpoint.*captioner"):
        make(folder).load()


def test_scoring_before_load_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"captioner.*load\(\)"):
        LikelihoodRatioScorer("captioner.ckpt", "shards").score(tokens(), CAPTIONS)
