"""CIDEr optimization: unbiased gradients, exact resumption, and an increasing reward."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.utils.data import DataLoader

from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.decoders.vocabulary import build_vocabulary
from synth2_lightning.interfaces import LanguageDecoder
from synth2_lightning.metrics.cider_reward import CiderReward
from synth2_lightning.modules.self_critical import GreedyBaselineModule, SelfCriticalModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch
from synth2_lightning.types import GenerationSettings, ImageTextBatch, SampledTexts, TokenLoss

TEXTS = ("a bright field", "one dark", "")
IS_COMPLETE = (True, False, True)


class ListDecoder(LanguageDecoder):
    """Decoder of three texts, so that expectations are sums; it samples the texts of ``numbers`` next."""

    embed_dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, len(TEXTS))
        self.numbers: Sequence[int] = ()

    def log_probabilities(self, visual: Tensor) -> Tensor:
        logits: Tensor = self.head(visual.mean(1))
        return logits.log_softmax(-1)

    def loss(self, visual: Tensor, texts: Sequence[str], prompts: Sequence[str] | None = None) -> TokenLoss:
        raise NotImplementedError

    def generate(self, visual: Tensor, settings: GenerationSettings, prompts: Sequence[str] | None = None) -> list[str]:
        return [TEXTS[number] for number in self.log_probabilities(visual).argmax(1)]

    def sample(
        self, visual: Tensor, num_samples: int, max_new_tokens: int, prompts: Sequence[str] | None = None
    ) -> SampledTexts:
        numbers = torch.tensor(self.numbers)
        sums = -self.log_probabilities(visual).repeat_interleave(num_samples, 0).gather(1, numbers[:, None]).squeeze(1)
        texts, is_complete = zip(*((TEXTS[number], IS_COMPLETE[number]) for number in self.numbers), strict=True)
        return SampledTexts(texts, is_complete, TokenLoss(sums, torch.tensor([4, 2, 1])[numbers]))


class SamplingDecoder(TinyDecoder):
    """Samples the word of each position, up to the first end of text."""

    def sample(
        self, visual: Tensor, num_samples: int, max_new_tokens: int, prompts: Sequence[str] | None = None
    ) -> SampledTexts:
        logits = self._logits(visual).log_softmax(-1).repeat_interleave(num_samples, 0)
        words = Categorical(logits=logits.detach()).sample()
        is_end = words == 0
        is_sampled = is_end.cumsum(1) - is_end.long() == 0
        sums = -(logits.gather(2, words[..., None]).squeeze(2) * is_sampled).sum(1)
        rows = words.where(is_sampled, 0).tolist()
        texts = tuple(" ".join(self.words[word] for word in row if word) for row in rows)
        return SampledTexts(texts, tuple(is_end.any(1).tolist()), TokenLoss(sums, is_sampled.sum(1)))


def references(num_images: int = 16) -> list[tuple[str, ...]]:
    return list(tiny_batch(num_images, seed=7).references)


def gradients(module: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(module.parameters()), retain_graph=True))


@pytest.mark.parametrize("kind", [SelfCriticalModule, GreedyBaselineModule])
def test_the_expected_gradient_is_that_of_the_expected_reward(kind: type[SelfCriticalModule]) -> None:
    torch.manual_seed(0)
    module = kind(TinyImageTokenizer(), TinyResampler(), decoder := ListDecoder(), samples_per_image=2).double()
    module.reward = CiderReward(references())
    visual, batch = torch.randn(2, 4, 8, dtype=torch.double), tiny_batch(2)
    log_p = decoder.log_probabilities(visual)
    rewards = torch.stack([module.score(TEXTS, IS_COMPLETE, [texts] * 3) for texts in batch.references]).double()
    assert len(rewards.unique()) > 2
    expected = gradients(decoder, -(log_p.exp() * rewards).sum(1).mean())

    total, surrogates = torch.zeros(()), []
    for numbers in product(range(3), repeat=2):  # two samples of each image
        decoder.numbers = numbers * 2
        losses = module.compute_loss(visual, batch)
        surrogates.append(losses.sums / losses.counts.sum())
        total = total + (log_p[:, numbers].sum(1).exp().detach() * surrogates[-1]).sum()
    torch.testing.assert_close(gradients(decoder, total), expected, rtol=1e-5, atol=1e-6)
    single = gradients(decoder, surrogates[1].sum())  # of one estimate
    assert (single[0] - expected[0]).abs().max() > 0.1


def test_the_baseline_is_the_mean_of_the_other_samples() -> None:
    module = SelfCriticalModule(TinyImageTokenizer(), TinyResampler(), ListDecoder(), samples_per_image=3)
    baselines = module.baselines(torch.tensor([[0.0, 3.0, 6.0]]), torch.zeros(1, 4, 8), tiny_batch(1))
    assert baselines.tolist() == [[4.5, 3.0, 1.5]]


def tiny_module() -> SelfCriticalModule:
    torch.manual_seed(0)
    return SelfCriticalModule(
        TinyImageTokenizer(),
        TinyResampler(),
        SamplingDecoder(),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.05),
    )


def captioner(folder: Path, dropout: float = 0.0) -> SelfCriticalModule:
    """Return a captioner with a language model, not trained."""
    torch.manual_seed(0)
    build_vocabulary([text for texts in references() for text in texts], 1, folder)
    config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    config |= {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    module = SelfCriticalModule(
        TinyImageTokenizer(),
        TinyResampler(),
        PrefixDecoder(NewLanguageModel(config, str(folder))),
        GenerationSettings(max_new_tokens=5),
    )
    module.configure_model()
    return module


class TinyData(LightningDataModule):
    """Two batches per epoch."""

    def train_dataloader(self) -> DataLoader[ImageTextBatch]:
        return DataLoader([tiny_batch(8, seed=seed) for seed in range(2)], batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[ImageTextBatch]:
        return DataLoader([tiny_batch(2, seed=5)], batch_size=None)  # type: ignore[arg-type]

    def training_captions(self) -> list[tuple[str, ...]]:
        return references()


def fit(module: SelfCriticalModule, num_epochs: int, **settings: Any) -> Trainer:
    seed_everything(3, verbose=False)
    trainer = Trainer(
        accelerator="cpu", max_epochs=num_epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=TinyData(), **settings)
    return trainer


def test_the_reward_rises_and_is_logged() -> None:
    module = tiny_module()
    first = fit(module, 1).callback_metrics
    assert float(first["train/reward"]) < 2  # of random words
    assert float(first["train/reward_std"]) > 0
    assert 0 < float(first["train/distinct_1"]) < float(first["train/distinct_2"]) < 1
    assert 0 < float(first["train/complete"]) < 1
    last = fit(module, 30).callback_metrics
    assert float(last["train/reward"]) > 4
    assert float(last["train/baseline"]) == pytest.approx(float(last["train/reward"]))
    assert float(last["train/length"]) > 1
    module.eval()
    held_out = tiny_batch(16, seed=9)
    captions = module.predict_step(held_out, 0)["captions"]
    assert {"bright" in caption for caption in captions} == {True, False}
    assert [("bright" in caption) for caption in captions] == [("bright" in caption) for caption in held_out.captions]


def test_a_resumed_run_samples_the_same_captions(tmp_path: Path) -> None:
    fit(whole := tiny_module(), 4)
    fit(tiny_module(), 2).save_checkpoint(tmp_path / "part.ckpt")
    resumed = tiny_module()
    fit(resumed, 4, ckpt_path=tmp_path / "part.ckpt", weights_only=True)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), atol=0, rtol=0)


def test_the_decoder_has_no_dropout_in_training(tmp_path: Path) -> None:
    module = captioner(tmp_path, dropout=0.9).train()
    module.reward = CiderReward(references())
    assert module.training
    assert module.resampler.training
    assert not any(part.training for part in module.decoder.modules())
    visual, losses = torch.randn(2, 4, 16), []
    for _ in range(2):
        torch.manual_seed(1)
        losses.append(module.decoder.sample(visual, 2, 5).losses.sums)
        module.eval()
    assert torch.equal(*losses)


def test_the_loss_of_validation_is_that_of_the_captions(tmp_path: Path) -> None:
    module, batch = captioner(tmp_path), tiny_batch(4)
    visual = module.encode_images(batch.image)
    expected = module.decoder.loss(visual, batch.captions)
    losses = module.eval().compute_loss(visual, batch)
    assert torch.equal(losses.sums, expected.sums)
    assert torch.equal(losses.counts, expected.counts)


def test_one_sample_per_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"samples_per_image=1; expected 2 or more"):
        SelfCriticalModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder(), samples_per_image=1)


def test_data_loaders_without_training_captions_are_refused() -> None:
    trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
    loader = TinyData().train_dataloader()
    with pytest.raises(TypeError, match=r"NoneType.*training_captions\(\).*MixedDataModule"):
        trainer.fit(tiny_module(), loader, loader)


def test_training_batches_without_references_are_refused() -> None:
    module, batch = tiny_module(), tiny_batch(2)
    module.reward = CiderReward(references())
    alone = ImageTextBatch(batch.image, batch.captions, batch.samples)
    with pytest.raises(ValueError, match=r"10 captions and references of 0.*ImageTextBatch\.references"):
        module.training_step(alone, 0)


def test_a_step_outside_of_a_fit_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"document frequencies.*Trainer\.fit"):
        tiny_module().training_step(tiny_batch(2), 0)


def test_decoders_that_cannot_sample_are_named() -> None:
    module = SelfCriticalModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    with pytest.raises(TypeError, match=r"TinyDecoder.*sample\(\).*PrefixDecoder"):
        module.training_step(tiny_batch(2), 0)
