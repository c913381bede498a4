from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.weight_averaging import WeightAveragingCallback
from synth2_lightning.generators.muse import MuseGenerator
from synth2_lightning.io.class_specs import build_component
from synth2_lightning.modules.muse import MuseModule
from synth2_lightning.nn.maskgit import MaskGit
from synth2_lightning.nn.parallel_decoding import MaskGitSampling
from synth2_lightning.testing import TinyImageTokenizer, TinyTextEncoder, tiny_batch
from synth2_lightning.types import ImageTextBatch, MixedImages, Pixels, VQTokens

NETWORK = partial(MaskGit, width=32, depth=2, num_heads=2)


def make_module(**arguments: Any) -> MuseModule:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "sampling": MaskGitSampling(num_steps=2),
        "optimizer": partial(torch.optim.AdamW, lr=1e-2),
    }
    return MuseModule(TinyImageTokenizer(), TinyTextEncoder(), NETWORK, **(settings | arguments))


def make_loader(batches: list[ImageTextBatch]) -> DataLoader[ImageTextBatch]:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def make_trainer(folder: Path, **arguments: Any) -> Trainer:
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
    }
    return Trainer(accelerator="cpu", default_root_dir=folder, **(quiet | arguments))


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_texts_are_dropped_at_the_given_rate(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    module, dropped = make_module(text_dropout=rate), []
    encode_text = module.network.encode_text

    def spy(text: Any, mask: Any, drop_text: torch.Tensor) -> Any:
        dropped.append(drop_text)
        return encode_text(text, mask, drop_text)

    monkeypatch.setattr(module.network, "encode_text", spy)
    batch = tiny_batch(64)
    for step in range(40):
        module.training_step(batch, step)
    assert torch.cat(dropped).float().mean() == pytest.approx(rate, abs=0.02)


def test_only_masked_tokens_contribute_to_the_loss() -> None:
    module = make_module(text_dropout=0.0, label_smoothing=0.0)
    tokens, captions = module.tokenizer.tokenize(tiny_batch(3).image), tiny_batch(3).captions  # type: ignore[arg-type]
    mask = torch.tensor([[True, False, False, False]] * 3)
    losses, counts, _ = module._masked_loss(tokens, captions, mask, torch.zeros(3, dtype=torch.bool), 0.0)
    assert counts.tolist() == [1, 1, 1]
    assert (losses[:, 1:] == 0).all()
    states = module.network(
        module.tokenizer.embed_tokens(tokens), mask, module.network.encode_text(*module.text_encoder.encode(captions))
    )
    logits = module.network.level_logits(states[:, 0], torch.zeros(3, 0, dtype=torch.long))
    expected = torch.nn.functional.cross_entropy(logits, tokens.ids[:, 0, 0], reduction="none")
    torch.testing.assert_close(losses[:, 0], expected)


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_it_learns_from_captions_and_writes_a_generator(tmp_path: Path) -> None:
    module = make_module()
    batches = [tiny_batch(16, seed) for seed in range(60)]
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[WeightAveragingCallback(fraction=0.1)])
    trainer.fit(module, make_loader(batches), make_loader([tiny_batch(32, 100)]))
    assert trainer.callback_metrics["val/loss"] < 2.0  # of log 16 = 2.77 nats
    assert {"train/loss_masked_50", "train/loss_masked_100", "val/recall_at_10"} <= set(trainer.callback_metrics)
    assert 1 <= trainer.callback_metrics["val/codes_per_grid"] <= 4
    generator = MuseGenerator(
        str(tmp_path / "generator"), TinyImageTokenizer(), TinyTextEncoder(), MaskGitSampling(num_steps=2)
    )
    generator.load()
    assert torch.equal(generator.network.null_text_embedding, module.network.null_text_embedding.half().float())
    bright = generator.generate(["a bright field"] * 16, list(range(16))).ids.float().mean()
    dark = generator.generate(["a dark field"] * 16, list(range(16))).ids.float().mean()
    assert bright > dark + 5


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_the_card_of_a_generator_has_the_run_file_that_builds_it(tmp_path: Path) -> None:
    module = make_module(export_to=str(tmp_path / "sheep"))
    loader = make_loader([tiny_batch(4)] * 2)
    make_trainer(tmp_path, max_steps=2).fit(module, loader, loader)
    front, body = (tmp_path / "sheep" / "README.md").read_text().removeprefix("---\n").split("---\n", 1)
    assert "maskgit" in yaml.safe_load(front)["tags"]
    assert body.startswith("\n# sheep\n")
    assert "2 optimization steps" in body
    spec = yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])["model"]["init_args"]["generator"]
    spec["init_args"]["generator"] = str(tmp_path / "sheep")
    generator = build_component(spec, MuseGenerator)
    assert generator.sampling == module.sampling
    assert generator.tokenizer.codebook == module.tokenizer.codebook


def test_images_tokens_and_mixtures_have_the_same_tokens() -> None:
    module, batch = make_module(), tiny_batch(4)
    pixels = batch.image
    tokens = module._tokens(pixels)
    assert torch.equal(module._tokens(tokens).ids, tokens.ids)
    mixed = MixedImages((pixels, tokens))  # type: ignore[arg-type]
    assert torch.equal(module._tokens(mixed).ids, torch.cat([tokens.ids, tokens.ids]))


def test_tokens_of_another_codebook_are_refused_in_a_mixture() -> None:
    module, batch = make_module(), tiny_batch(2)
    own = module._tokens(batch.image)
    mixed = MixedImages((own, VQTokens(own.ids, "other-16:deadbeef")))
    with pytest.raises(ValueError, match=r"'other-16:deadbeef'; expected 'tiny"):
        module.training_step(replace(batch, image=mixed, captions=batch.captions * 2), 0)


def test_validation_masks_the_same_tokens_every_time() -> None:
    module = make_module().eval()
    first, second = (module.validation_step(tiny_batch(4), 0) for _ in range(2))
    assert torch.equal(first["generated"].ids, second["generated"].ids)


def test_validation_depends_on_neither_batches_nor_label_smoothing() -> None:
    batch = tiny_batch(6)
    halves = [select(batch, slice(0, 3)), select(batch, slice(3, 6))]
    whole, split = make_module(label_smoothing=0.2).eval(), make_module(label_smoothing=0.0).eval()
    expected = whole.validation_step(batch, 0)["generated"].ids
    found = [split.validation_step(half, number)["generated"].ids for number, half in enumerate(reversed(halves))]
    split.validation_step(halves[0], 2)  # as samplers repeat images, so that all ranks have the same number
    assert torch.equal(torch.cat(found[::-1]), expected)
    torch.testing.assert_close(split.token_loss.compute(), whole.token_loss.compute())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_a_compiled_network_has_the_same_losses_and_names(graph_counts: dict[str, int]) -> None:
    losses = []
    for compile_network in (False, True):
        module = make_module(compile_network=compile_network)
        losses.append(module.training_step(tiny_batch(4), 0))
        assert list(module.state_dict()) == list(make_module().state_dict())
    assert graph_counts["unique_graphs"] == 1
    torch.testing.assert_close(losses[0], losses[1])


def select(batch: ImageTextBatch, rows: slice) -> ImageTextBatch:
    assert isinstance(batch.image, Pixels)
    image = Pixels(batch.image.values[rows])
    return ImageTextBatch(image=image, captions=batch.captions[rows], samples=batch.samples[rows])


def test_checkpoints_contain_the_trained_parts() -> None:
    assert not any(name.startswith(("tokenizer", "text_encoder")) for name in make_module().state_dict())


@pytest.mark.parametrize(("text_dropout", "label_smoothing"), [(1.5, 0.1), (0.1, 1.0)])
def test_fractions_out_of_range_are_refused(text_dropout: float, label_smoothing: float) -> None:
    with pytest.raises(ValueError, match=f"text_dropout={text_dropout}.*label_smoothing={label_smoothing}"):
        make_module(text_dropout=text_dropout, label_smoothing=label_smoothing)


def test_grids_that_are_not_square_are_refused() -> None:
    tokenizer = TinyImageTokenizer()
    tokenizer.num_tokens = 6
    with pytest.raises(ValueError, match=r"6 tokens.*square"):
        MuseModule(tokenizer, TinyTextEncoder(), NETWORK)
