from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.optim.optimizer import Optimizer
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.reconstructions import ReconstructionsCallback
from synth2_lightning.encoders.vqgan import TrainableVQGAN, VQGANTokenizer
from synth2_lightning.modules.adversarial_tokenizer import AdversarialTokenizerModule
from synth2_lightning.nn.discriminator import PatchDiscriminator, hinge_loss
from synth2_lightning.testing import tiny_batch
from synth2_lightning.types import ImageTextBatch, Reconstruction

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def make_module(**settings: Any) -> AdversarialTokenizerModule:
    torch.manual_seed(0)
    # Re-initialization of codes samples random numbers: turned off, and initialization is immediate.
    vqgan = TrainableVQGAN(
        8, codebook_size=8, embed_dim=4, block_out_channels=(8, 8), norm_num_groups=4, revival_threshold=0.0
    )
    vqgan.reconstruct(tiny_batch(4, seed=99).image)  # type: ignore[arg-type]
    return AdversarialTokenizerModule(vqgan, discriminator=PatchDiscriminator(8, num_halvings=1), **settings)


def make_loader(num_batches: int) -> DataLoader[ImageTextBatch]:
    batches = [tiny_batch(4, seed) for seed in range(num_batches)]
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def make_trainer(folder: Path, num_steps: int, **settings: Any) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=num_steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def reconstruction(module: AdversarialTokenizerModule) -> Reconstruction:
    return module.tokenizer.reconstruct(tiny_batch(4).image)  # type: ignore[arg-type]


def weights_of(part: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in part.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trainable(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    # The export at the end writes the codes into a parameter that is not trained.
    return [weight for weight in module.parameters() if weight.requires_grad]


def gradients(part: torch.nn.Module) -> list[Tensor]:
    return [weight.grad for weight in part.parameters() if weight.grad is not None]


class Recorder(Callback):
    """Records the losses and the norms of both gradients before the optimizer step."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []
        self.norms: list[tuple[float, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        self.losses.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def on_before_zero_grad(self, trainer: Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        sides = (gradients(part) for part in (pl_module.tokenizer, pl_module.discriminator))
        norms = [float(torch.stack([tensor.norm() for tensor in side]).norm()) if side else 0.0 for side in sides]
        self.norms.append((norms[0], norms[1]))


def test_losses_are_those_of_tokenizer_and_discriminator() -> None:
    module = make_module(adversarial_weight=0.5)
    result = reconstruction(module)
    losses = module.compute_losses(result)
    with torch.no_grad():
        real, fake = module.discriminator(result.target), module.discriminator(result.pixels)
    assert float(losses["adversarial"].detach()) == pytest.approx(-float(fake.mean()))
    assert float(losses["discriminator"].detach()) == pytest.approx(float(hinge_loss(real, fake)))
    alone = losses["l1"] + losses["l2"] + 0.25 * losses["commitment"]
    expected = alone + 0.5 * losses["adversarial"] + losses["discriminator"]
    assert torch.isclose(losses["loss"], expected)


def test_each_network_gets_gradients_of_its_own_loss_only() -> None:
    module = make_module()
    losses = module.compute_losses(reconstruction(module))
    torch.autograd.backward(losses["adversarial"], retain_graph=True)
    assert gradients(module.tokenizer)
    assert not gradients(module.discriminator)
    module.zero_grad()
    torch.autograd.backward(losses["discriminator"])
    assert gradients(module.discriminator)
    assert not gradients(module.tokenizer)


def test_one_step_equals_a_step_of_two_optimizers(tmp_path: Path) -> None:
    module, twin = make_module(optimizer=partial(SGD, lr=0.1)), make_module()
    make_trainer(tmp_path, 1).fit(module, make_loader(1), make_loader(1))
    generator, critic = (SGD(part.parameters(), lr=0.1) for part in (twin.tokenizer, twin.discriminator))
    result = twin.tokenizer.reconstruct(tiny_batch(4, 0).image)  # type: ignore[arg-type]
    difference = result.pixels - result.target
    learned = difference.abs().mean() + difference.square().mean() + 0.25 * result.commitment
    torch.autograd.backward(learned - 0.1 * twin.discriminator(result.pixels).mean())
    generator.step()
    critic.zero_grad()
    torch.autograd.backward(hinge_loss(twin.discriminator(result.target), twin.discriminator(result.pixels.detach())))
    critic.step()
    torch.testing.assert_close(trainable(module), trainable(twin), atol=1e-5, rtol=1e-4)


def test_before_the_start_step_only_the_tokenizer_is_trained(tmp_path: Path) -> None:
    # Weight decay would change a discriminator whose gradients are zero instead of None.
    module = make_module(start_step=3, optimizer=partial(AdamW, lr=1e-2, weight_decay=0.5))
    tokenizer, discriminator = weights_of(module.tokenizer), weights_of(module.discriminator)
    recorder = Recorder()
    trainer = make_trainer(tmp_path, 3, callbacks=[recorder])
    trainer.fit(module, make_loader(3), make_loader(1))
    for losses in recorder.losses:
        assert losses["train/adversarial"] == losses["train/discriminator"] == 0
        alone = losses["train/l1"] + losses["train/l2"] + 0.25 * losses["train/commitment"]
        assert losses["train/loss"] == pytest.approx(alone)
    assert same(discriminator, weights_of(module.discriminator))
    assert not same(tokenizer, weights_of(module.tokenizer))
    assert not any(weight in trainer.optimizers[0].state for weight in module.discriminator.parameters())


def test_from_the_start_step_both_are_trained(tmp_path: Path) -> None:
    module, recorder = make_module(start_step=3, optimizer=partial(AdamW, lr=1e-2)), Recorder()
    discriminator = weights_of(module.discriminator)
    make_trainer(tmp_path, 4, callbacks=[recorder]).fit(module, make_loader(4), make_loader(1))
    assert [losses["train/discriminator"] > 0 for losses in recorder.losses] == [False, False, False, True]
    assert not same(discriminator, weights_of(module.discriminator))


def test_steps_are_batches_and_the_schedule_follows_them(tmp_path: Path) -> None:
    seen: list[int] = []

    def halve(optimizer: Optimizer, num_steps: int) -> LRScheduler:
        seen.append(num_steps)
        return LambdaLR(optimizer, lambda step: 0.5**step)

    module = make_module(optimizer=partial(AdamW, lr=1.0e-2), lr_scheduler=halve, discriminator_lr=4.0e-3)
    trainer = make_trainer(tmp_path, 2, accumulate_grad_batches=2)
    trainer.fit(module, make_loader(8), make_loader(1))
    assert seen == [2]
    assert trainer.global_step == 2
    assert trainer.fit_loop.epoch_loop.batch_idx == 3  # four batches: two for each step
    rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
    assert rates == pytest.approx([2.5e-3, 2.5e-3, 1.0e-3, 1.0e-3])


def test_norms_are_clipped_separately(tmp_path: Path) -> None:
    recorder = Recorder()
    # Gradients are cleared at the beginning of a step, so the second step clears those of the first.
    make_trainer(tmp_path, 2, gradient_clip_val=1e-3, callbacks=[recorder]).fit(
        make_module(), make_loader(2), make_loader(1)
    )
    assert recorder.norms[1] == pytest.approx((1e-3, 1e-3), rel=1e-2)


def test_values_are_clipped_by_lightning(tmp_path: Path) -> None:
    module = make_module(optimizer=partial(SGD, lr=1.0))
    before = [weight.detach().clone() for weight in trainable(module)]
    make_trainer(tmp_path, 1, gradient_clip_val=1e-4, gradient_clip_algorithm="value").fit(
        module, make_loader(1), make_loader(1)
    )
    moves = [float((now - then).detach().abs().max()) for now, then in zip(trainable(module), before, strict=True)]
    assert max(moves) == pytest.approx(1e-4, rel=1e-2)


def test_a_fit_logs_losses_draws_images_and_exports_a_tokenizer(tmp_path: Path) -> None:
    module = make_module(optimizer=partial(AdamW, lr=1e-2))
    trainer = make_trainer(tmp_path, 20, callbacks=[ReconstructionsCallback()], precision="bf16-mixed")
    trainer.fit(module, make_loader(20), make_loader(2))
    metrics = trainer.callback_metrics
    assert {f"{stage}/{name}" for stage in ("train", "val") for name in ("adversarial", "discriminator")} <= set(
        metrics
    )
    assert all(value.isfinite() for value in metrics.values())
    assert (tmp_path / "reconstructions" / "step=20.png").is_file()
    VQGANTokenizer(str(tmp_path / "tokenizer")).load()


def test_a_fit_resumes_exactly(tmp_path: Path) -> None:
    def settings() -> dict[str, Any]:
        return {
            "optimizer": partial(AdamW, lr=1e-2),
            "lr_scheduler": lambda optimizer, num_steps: LambdaLR(optimizer, lambda step: 0.9**step),
            "start_step": 2,
            "discriminator_lr": 1e-3,
        }

    straight = make_module(**settings())
    whole = make_trainer(tmp_path, 8)
    whole.fit(straight, make_loader(4), make_loader(1))
    half = make_trainer(tmp_path, 4)
    half.fit(make_module(**settings()), make_loader(4), make_loader(1))
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed = make_module(**settings())
    rest = make_trainer(tmp_path, 8)
    rest.fit(resumed, make_loader(4), make_loader(1), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert any(name.startswith("discriminator.") for name in resumed.state_dict())
    assert same(weights_of(straight), weights_of(resumed))
    states = [trainer.optimizers[0].state_dict()["state"] for trainer in (whole, rest)]
    assert len(states[0]) == len(trainable(straight))
    for one, other in zip(states[0].values(), states[1].values(), strict=True):
        assert same(one, other)


@pytest.mark.parametrize(
    "settings",
    [{"adversarial_weight": -0.1}, {"start_step": -1}, {"discriminator_lr": -1.0}, {"perceptual_weight": -1.0}],
)
def test_settings_below_zero_are_refused(settings: dict[str, float]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name}={value}.*0"):
        make_module(**settings)
