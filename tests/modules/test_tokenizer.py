from functools import partial
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from synth2_lightning.encoders.vqgan import TrainableVQGAN, VQGANTokenizer
from synth2_lightning.modules.schedules import WarmupCosineSchedule
from synth2_lightning.modules.tokenizer import TokenizerModule
from synth2_lightning.nn.perceptual import FeatureExtractor, perceptual_distance
from synth2_lightning.testing import tiny_batch
from synth2_lightning.types import ImageTextBatch, Reconstruction, SampleInfo, VQTokens


def make_vqgan() -> TrainableVQGAN:
    return TrainableVQGAN(8, codebook_size=8, embed_dim=4, block_out_channels=(8, 8), norm_num_groups=4)


class TinyFeatures(FeatureExtractor):
    """A frozen convolution with a running statistic, as in batch normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3).requires_grad_(False)
        self.register_buffer("statistic", torch.zeros(4))

    def extract(self, images: Float[Tensor, "batch 3 height width"]) -> list[Float[Tensor, "batch _ _ _"]]:
        return [self.convolution(images)]


def make_loader(num_batches: int) -> DataLoader[ImageTextBatch]:
    batches = [tiny_batch(4, seed) for seed in range(num_batches)]
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def fit(module: TokenizerModule, folder: Path, num_steps: int) -> Trainer:
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=num_steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, make_loader(num_steps), make_loader(2))
    return trainer


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_fit_lowers_the_loss_and_exports_a_tokenizer(tmp_path: Path) -> None:
    module = TokenizerModule(
        make_vqgan(),
        optimizer=partial(torch.optim.AdamW, lr=1e-2),
        lr_scheduler=partial(WarmupCosineSchedule, warmup_steps=2),
    )
    batch = tiny_batch(4, seed=99)
    with torch.no_grad():
        before = module.compute_losses(module.tokenizer.reconstruct(batch.image))["l2"]  # type: ignore[arg-type]
    trainer = fit(module, tmp_path, num_steps=40)
    assert float(trainer.callback_metrics["val/l2"]) < 0.7 * float(before)
    assert 1 <= float(trainer.callback_metrics["val/perplexity"]) <= 8
    assert {"train/loss", "train/l1", "train/l2", "train/commitment"} <= set(trainer.callback_metrics)
    assert float(trainer.callback_metrics["train/revived_codes"]) == module.tokenizer.codebook.num_revived  # type: ignore[union-attr]
    assert 1 / 8 <= float(trainer.callback_metrics["val/used_codes"]) <= 1
    assert "train/perceptual" not in trainer.callback_metrics
    tokenizer = VQGANTokenizer(str(tmp_path / "tokenizer"))
    tokenizer.load()
    module.eval()
    with torch.no_grad():
        ids = module.tokenizer.reconstruct(batch.image).ids  # type: ignore[arg-type]
    assert torch.equal(tokenizer.tokenize(batch.image).ids, ids)  # type: ignore[arg-type]


def test_losses_are_weighted() -> None:
    zeros = torch.zeros(1, 3, 2, 2)
    reconstruction = Reconstruction(zeros + 0.5, zeros, torch.tensor(4.0), torch.zeros(1, 1, 1, dtype=torch.long))
    losses = TokenizerModule(make_vqgan(), 2.0, 8.0, 0.25).compute_losses(reconstruction)
    assert {name: float(value) for name, value in losses.items()} == {
        "loss": 2 * 0.5 + 8 * 0.25 + 0.25 * 4,
        "l1": 0.5,
        "l2": 0.25,
        "commitment": 4.0,
    }


def test_features_are_compared_in_addition_to_pixels() -> None:
    features = TinyFeatures()
    module = TokenizerModule(make_vqgan(), features=features, perceptual_weight=0.5)
    reconstruction = module.tokenizer.reconstruct(tiny_batch().image)  # type: ignore[arg-type]
    losses = module.compute_losses(reconstruction)
    expected = perceptual_distance(features.extract(reconstruction.pixels), features.extract(reconstruction.target))
    assert torch.equal(losses["perceptual"], expected)
    assert torch.isclose(
        losses["loss"], losses["l1"] + losses["l2"] + 0.25 * losses["commitment"] + 0.5 * losses["perceptual"]
    )
    torch.autograd.backward(losses["perceptual"])
    assert any(weight.grad is not None for weight in module.tokenizer.parameters())
    assert features.convolution.weight.grad is None


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_perceptual_loss_falls_and_its_network_is_not_saved(tmp_path: Path) -> None:
    module = TokenizerModule(make_vqgan(), features=TinyFeatures(), optimizer=partial(torch.optim.AdamW, lr=1e-2))
    batch = tiny_batch(4, seed=99)
    with torch.no_grad():
        before = module.compute_losses(module.tokenizer.reconstruct(batch.image))["perceptual"]  # type: ignore[arg-type]
    trainer = fit(module, tmp_path, num_steps=40)
    assert float(trainer.callback_metrics["val/perceptual"]) < 0.7 * float(before)
    assert not any(name.startswith("features") for name in module.state_dict())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert not any("features" in name for name in saved["state_dict"])
    TokenizerModule(make_vqgan()).load_state_dict(saved["state_dict"])  # tokenization needs no features


def test_checkpoints_contain_and_restore_the_codebook() -> None:
    module, other = TokenizerModule(make_vqgan()), TokenizerModule(make_vqgan())
    pixels = tiny_batch().image
    module.tokenizer.reconstruct(pixels)  # type: ignore[arg-type]
    other.load_state_dict(module.state_dict())
    module.eval()
    other.eval()
    with torch.no_grad():
        first, second = (part.tokenizer.reconstruct(pixels) for part in (module, other))  # type: ignore[arg-type]
    assert torch.equal(first.pixels, second.pixels)
    assert torch.equal(first.ids, second.ids)


@pytest.mark.parametrize("weights", [(-1.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, -0.5)])
def test_weights_without_a_reconstruction_loss_are_refused(weights: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=rf"l1_weight={weights[0]}.*l2_weight={weights[1]}"):
        TokenizerModule(make_vqgan(), *weights)
    with pytest.raises(ValueError, match=r"perceptual_weight=-0\.5"):
        TokenizerModule(make_vqgan(), perceptual_weight=-0.5)


def test_batches_without_images_are_refused() -> None:
    tokens = VQTokens(torch.zeros(2, 4, 1, dtype=torch.long), "tiny-16:00000000")
    batch = ImageTextBatch(tokens, ("a", "b"), (SampleInfo("0", "tiny"), SampleInfo("1", "tiny")))
    with pytest.raises(TypeError, match=r"VQTokens.*Pixels"):
        TokenizerModule(make_vqgan()).training_step(batch, 0)
