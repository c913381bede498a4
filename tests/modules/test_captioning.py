import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.io.locations import resolve
from synth2_lightning.modules.captioning import VisionLanguageModule, source_losses
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch
from synth2_lightning.types import GenerationSettings, ImageTextBatch, MixedImages, Pixels, SampleInfo, TokenLoss


def tiny_module() -> VisionLanguageModule:
    optimizer = partial(torch.optim.AdamW, lr=0.05)
    return VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder(), optimizer=optimizer)


def batches(num: int = 30) -> list[ImageTextBatch]:
    """Pixels and their tokens under another name, as in mixed training."""
    tokenizer, made = TinyImageTokenizer(), []
    for seed in range(num):
        real, other = tiny_batch(4, seed=seed), tiny_batch(4, seed=1000 + seed)
        assert isinstance(other.image, Pixels)
        synthetic = ImageTextBatch(
            tokenizer.tokenize(other.image),
            other.captions,
            tuple(SampleInfo(key, "synthetic") for key in other.keys),
            other.references,
        )
        made.append(ImageTextBatch.concat([real, synthetic]))
    return made


def loader(items: list[ImageTextBatch]) -> DataLoader[ImageTextBatch]:
    return DataLoader(items, batch_size=None)  # type: ignore[arg-type]


def tiny_trainer(folder: Path, **settings: object) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=folder, **settings,  # type: ignore[arg-type]
    )  # fmt: skip


def test_trains_on_pixels_and_tokens_and_logs_each_source(tmp_path: Path) -> None:
    module, trainer = tiny_module(), tiny_trainer(tmp_path, max_epochs=6)
    trainer.fit(module, loader(batches()), loader([tiny_batch(16, seed=7)]))
    logged = trainer.callback_metrics
    assert float(logged["train/loss"]) < 0.1
    assert float(logged["val/loss"]) < 0.1
    assert {"train/loss_tiny", "train/loss_synthetic", "data/fraction_tiny", "data/fraction_synthetic"} <= set(logged)
    assert float(logged["data/fraction_synthetic"]) == 0.5

    outputs = trainer.predict(module, loader([tiny_batch(8, seed=9)]))
    assert outputs is not None
    assert outputs[0]["captions"] == tiny_batch(8, seed=9).captions  # type: ignore[call-overload]


def weigh(batch: ImageTextBatch, weights: list[float]) -> ImageTextBatch:
    return replace(batch, weights=torch.tensor(weights))


def fitted(folder: Path, items: list[ImageTextBatch], **settings: object) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    module = VisionLanguageModule(
        TinyImageTokenizer(), TinyResampler(), TinyDecoder(), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.5)
    )
    trainer = tiny_trainer(folder, max_epochs=1, limit_val_batches=0, **settings)
    trainer.fit(module, loader(items), loader([tiny_batch()]))
    return module.state_dict()


def test_a_weight_of_two_counts_like_a_second_copy_of_the_row(tmp_path: Path) -> None:
    first, second = tiny_batch(2, seed=3), tiny_batch(2, seed=1)  # dark and bright
    twice = ImageTextBatch.concat([first, first, second])
    weighted = weigh(ImageTextBatch.concat([first, second]), [2.0, 2.0, 1.0, 1.0])
    expected = fitted(tmp_path, [twice])
    torch.testing.assert_close(fitted(tmp_path, [weighted]), expected)
    # Also if the batches are accumulated: the sum of the weighted tokens of both divides the loss.
    parts = [weigh(first, [2.0, 2.0]), second]
    torch.testing.assert_close(fitted(tmp_path, parts, accumulate_grad_batches=2), expected)
    plain = fitted(tmp_path, [ImageTextBatch.concat([first, second])])
    assert not torch.allclose(plain["decoder.head.weight"], expected["decoder.head.weight"])


def test_equal_weights_change_nothing(tmp_path: Path) -> None:
    batch = tiny_batch(4, seed=3)
    torch.testing.assert_close(fitted(tmp_path, [weigh(batch, [0.5] * 4)]), fitted(tmp_path, [batch]))


def test_a_source_may_be_missing_in_some_batches_of_an_epoch(tmp_path: Path) -> None:
    mixed, alone = batches(2), [tiny_batch(4, seed=1), tiny_batch(4, seed=2)]
    trainer = tiny_trainer(tmp_path, max_epochs=1)
    trainer.fit(tiny_module(), loader([mixed[0], *alone, mixed[1]]), loader([tiny_batch(4)]))
    assert trainer.global_step == 4


def save(module: VisionLanguageModule, folder: Path) -> Path:
    """Save a checkpoint of a script after a step."""
    trainer = tiny_trainer(folder, max_steps=1)
    trainer.fit(module, loader([tiny_batch()]), loader([tiny_batch()]))
    trainer.save_checkpoint(folder / "script.ckpt")
    return folder / "script.ckpt"


def test_a_checkpoint_of_a_script_describes_its_components(tmp_path: Path) -> None:
    parts: dict[str, Any] = {
        "image_encoder": TinyImageTokenizer(),
        "resampler": TinyResampler(),
        "decoder": TinyDecoder(),
    }
    optimizer, settings = partial(torch.optim.SGD, lr=0.25), GenerationSettings(num_beams=2)
    module = VisionLanguageModule(**parts, generation=settings, optimizer=optimizer)
    loaded = VisionLanguageModule.load_from_checkpoint(save(module, tmp_path))
    assert loaded.generation == settings
    assert loaded.configure_optimizers().param_groups[0]["lr"] == 0.25  # type: ignore[union-attr]
    torch.testing.assert_close(loaded.state_dict(), module.state_dict(), atol=0, rtol=0)
    replaced = VisionLanguageModule.load_from_checkpoint(tmp_path / "script.ckpt", generation=GenerationSettings())
    assert replaced.generation.num_beams == 1


def test_what_cannot_be_described_is_named_when_it_is_missed(tmp_path: Path) -> None:
    class Decoder(TinyDecoder):
        pass

    module = VisionLanguageModule(
        TinyImageTokenizer(), TinyResampler(), Decoder(), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1)
    )
    path = save(module, tmp_path)
    with pytest.raises(ValueError, match=r"'decoder'.*does not describe decoder, optimizer: .*Decoder is defined in"):
        VisionLanguageModule.load_from_checkpoint(path)
    loaded = VisionLanguageModule.load_from_checkpoint(path, decoder=Decoder())
    torch.testing.assert_close(loaded.state_dict(), module.state_dict(), atol=0, rtol=0)


def test_a_resampler_is_an_object_of_one_module() -> None:
    resampler, unchecked = TinyResampler(), inspect.unwrap(VisionLanguageModule.__init__)
    for given in (TinyResampler, partial(TinyResampler)):
        with pytest.raises(TypeError, match=r"resampler .*TinyResampler.* an object"):
            unchecked(VisionLanguageModule.__new__(VisionLanguageModule), TinyImageTokenizer(), given, TinyDecoder())
    VisionLanguageModule(TinyImageTokenizer(), resampler, TinyDecoder())
    with pytest.raises(ValueError, match=r"TinyResampler belongs to another module.*new one"):
        VisionLanguageModule(TinyImageTokenizer(), resampler, TinyDecoder())


def test_no_gradient_reaches_the_encoder_and_none_of_it_is_saved() -> None:
    module = tiny_module()
    module.training_step(tiny_batch(), 0).backward()
    assert all(parameter.grad is not None for parameter in module.resampler.parameters())
    assert not any(name.startswith("image_encoder") for name in module.state_dict())


def _swap(words: dict[str, int]) -> None:
    words["\u2581blue"], words["\u2581picture"] = words["\u2581picture"], words["\u2581blue"]


def _add(words: dict[str, int]) -> None:
    words["zebra"] = len(words)


def _remove(words: dict[str, int]) -> None:
    del words[max(words, key=words.__getitem__)]


@pytest.mark.parametrize("change", [_swap, _add, _remove])
def test_weights_of_another_vocabulary_are_refused(tmp_path: Path, change: Callable[[dict[str, int]], None]) -> None:
    def make() -> VisionLanguageModule:
        config = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1}
        decoder = PrefixDecoder(NewLanguageModel(config, str(tmp_path / "vocabulary")))
        return VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), decoder)

    copytree(resolve("package://synth2_lightning/scenes/vocabulary", "vocabulary"), tmp_path / "vocabulary")
    checkpoint = {"vocabulary": make().decoder.fingerprint_vocabulary()}
    make().on_load_checkpoint(checkpoint)
    make().on_load_checkpoint({})  # as of earlier versions
    file = tmp_path / "vocabulary" / "tokenizer.json"
    content = json.loads(file.read_text("utf-8"))
    change(content["model"]["vocab"])
    file.write_text(json.dumps(content), "utf-8")
    with pytest.raises(ValueError, match=rf"vocabulary.*{checkpoint['vocabulary']}"):
        make().on_load_checkpoint(checkpoint)


def test_the_vocabulary_is_saved_with_the_weights(tmp_path: Path) -> None:
    class Decoder(TinyDecoder):
        checksum = "abc"

        def fingerprint_vocabulary(self) -> str:
            return self.checksum

    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), Decoder())
    trainer = tiny_trainer(tmp_path, max_steps=1)
    trainer.fit(module, loader(batches(1)), loader([tiny_batch(4)]))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    Decoder.checksum = "abd"
    with pytest.raises(ValueError, match=r"vocabulary.* abd.*'abc'"):
        tiny_trainer(tmp_path).validate(module, loader([tiny_batch(4)]), ckpt_path=tmp_path / "a.ckpt")


class TargetlessModule(VisionLanguageModule):
    def compute_loss(self, visual: torch.Tensor, batch: ImageTextBatch) -> TokenLoss:
        return TokenLoss(visual.sum((1, 2)) * 0, torch.zeros(len(batch), dtype=torch.long))


@pytest.mark.parametrize("num_batches", [1, 2])
def test_a_batch_without_targets_stops_the_run(num_batches: int, tmp_path: Path) -> None:
    module = TargetlessModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    trainer = tiny_trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0)
    with pytest.raises(ValueError, match=r"batch of step 1\b.*target token"):
        trainer.fit(module, loader(batches(num_batches)), loader(batches(1)))


class UpperCaseModule(VisionLanguageModule):
    def generate(self, visual: torch.Tensor, prompts: Sequence[str] | None = None) -> list[str]:
        return [caption.upper() for caption in super().generate(visual, prompts)]


def test_a_subclass_overrides_the_generation_only() -> None:
    module = UpperCaseModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    output = module.predict_step(tiny_batch(), 0)
    assert all(caption == caption.upper() for caption in output["captions"])
    assert tuple(module.caption(tiny_batch().image)) == output["captions"]
    assert set(output) == {"keys", "captions", "references"}


class PromptedDecoder(TinyDecoder):
    """Generates its prompts."""

    def generate(
        self, visual: torch.Tensor, settings: GenerationSettings, prompts: Sequence[str] | None = None
    ) -> list[str]:
        return list(prompts or ["none"] * len(visual))


def test_prompts_reach_the_decoder() -> None:
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), PromptedDecoder())
    batch = tiny_batch()
    assert isinstance(batch.image, Pixels)
    assert module.caption(batch.image) == ["none", "none"]
    assert module.caption(batch.image, ["one", "two"]) == ["one", "two"]
    assert module.predict_step(replace(batch, prompts=("one", "two")), 0)["captions"] == ("one", "two")


def test_all_kinds_of_images_are_captioned_without_gradients() -> None:
    module, batch = tiny_module(), tiny_batch()
    assert isinstance(batch.image, Pixels)
    tokens = TinyImageTokenizer().tokenize(batch.image)
    expected = module.caption(batch.image)
    assert module.caption(tokens) == expected
    assert module.caption(MixedImages((batch.image, tokens))) == expected * 2
    seen: list[bool] = []
    module.resampler.register_forward_hook(lambda _, __, visual: seen.append(visual.requires_grad))
    module.caption(batch.image)
    assert seen == [False]


def test_source_losses_divide_by_their_own_tokens() -> None:
    losses = source_losses(torch.tensor([4.0, 2.0, 4.0]), torch.tensor([1, 2, 1]), ("a", "b", "a"))
    assert {name: float(value) for name, value in losses.items()} == {"a": 4.0, "b": 1.0}
