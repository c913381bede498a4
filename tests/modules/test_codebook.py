from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from synth2_lightning.encoders.quantized import CodebookLearner, QuantizedEncoder, ResidualCodebookLearner
from synth2_lightning.modules.codebook import CodebookModule
from synth2_lightning.testing import TinyImageTokenizer, tiny_batch
from synth2_lightning.types import ImageTextBatch, Pixels, Quantization, SampleInfo, VQTokens


def make_module() -> CodebookModule:
    encoder = TinyImageTokenizer()
    return CodebookModule(ResidualCodebookLearner(encoder, codebook_size=4, num_levels=2, decay=0.8))


def loader(num_batches: int, seed: int = 0, num_images: int = 16) -> "DataLoader[ImageTextBatch]":
    batches = [tiny_batch(num_images, seed=seed + step) for step in range(num_batches)]
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]  # a list is a map-style dataset


def trainer(folder: Path, max_steps: int = 6) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )


@pytest.fixture
def fitted(tmp_path: Path) -> tuple[CodebookModule, Trainer]:
    module, run = make_module(), trainer(tmp_path)
    run.fit(module, loader(3), loader(2, seed=100))
    return module, run


pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*")


def test_fit_counts_steps_and_measures_held_out_images(fitted: tuple[CodebookModule, Trainer]) -> None:
    module, run = fitted
    assert run.global_step == 6
    metrics = run.callback_metrics
    assert 0.5 < metrics["val/explained_variance"] <= 1
    assert 1 <= metrics["val/perplexity"] <= 8
    assert {"train/explained_variance", "train/perplexity", "train/loss"} <= set(metrics)
    assert float(module.anchor.detach()) == 0


def test_features_that_are_not_finite_end_the_run(tmp_path: Path) -> None:
    class Broken(TinyImageTokenizer):
        def encode_pixels(self, pixels: Pixels) -> torch.Tensor:
            return super().encode_pixels(pixels) * (float("nan") if run.global_step == 2 else 1)

    module, run = CodebookModule(ResidualCodebookLearner(Broken(), codebook_size=4, num_levels=2)), trainer(tmp_path)
    with pytest.raises(FloatingPointError, match=r"step 3 .*nan.*process 0.*train/loss=nan.*train/expl"):
        run.fit(module, loader(3), loader(1))
    assert not (tmp_path / "codebook").exists()


def test_explained_variance_is_over_the_whole_split(fitted: tuple[CodebookModule, Trainer]) -> None:
    module, run = fitted
    (scores,) = run.validate(module, loader(3, seed=200), verbose=False)
    module.learner.eval()
    parts = [module.learner.quantize(batch.image) for batch in loader(3, seed=200)]
    features = torch.cat([part.features for part in parts]).flatten(0, 1)
    errors = features - torch.cat([part.quantized for part in parts]).flatten(0, 1)
    expected = 1 - errors.var(0, correction=0).sum() / features.var(0, correction=0).sum()
    assert scores["val/explained_variance"] == pytest.approx(float(expected), abs=1e-4)


def test_fit_writes_a_codebook_that_tokenizes(fitted: tuple[CodebookModule, Trainer], tmp_path: Path) -> None:
    module, _ = fitted
    tokenizer = QuantizedEncoder(TinyImageTokenizer(), str(tmp_path / "codebook"))
    tokenizer.load()
    batch = tiny_batch(16)
    expected = module.learner.eval().quantize(batch.image).quantized  # type: ignore[arg-type]
    torch.testing.assert_close(tokenizer(batch.image), expected)


def test_a_codebook_is_written_to_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    module = CodebookModule(make_module().learner, export_to="runs/mine/codebook")
    with caplog.at_level("INFO"):
        trainer(tmp_path / "logs", max_steps=1).fit(module, loader(1), loader(1))
    assert {"codebook.safetensors", "codebook.json"} <= {path.name for path in Path("runs/mine/codebook").iterdir()}
    assert not (tmp_path / "logs" / "codebook").exists()
    assert "codebook to runs/mine/codebook" in caplog.text


class AlwaysTheFirstCode(CodebookLearner):
    codebook_size, num_levels = 4, 2

    def quantize(self, pixels: Pixels) -> Quantization:
        features = torch.arange(24.0).view(2, 4, 3)
        return Quantization(features, features.clone(), torch.zeros(len(pixels), 4, 2, dtype=torch.long))

    def export(self, folder: Path) -> None:
        folder.mkdir()


def test_same_id_on_two_levels_is_two_codes(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_steps=1)
    run.fit(CodebookModule(AlwaysTheFirstCode()), loader(1, num_images=2), loader(1, num_images=2))
    assert float(run.callback_metrics["val/perplexity"]) == pytest.approx(2)
    assert float(run.callback_metrics["train/perplexity"]) == pytest.approx(2)
    assert float(run.callback_metrics["val/explained_variance"]) == pytest.approx(1)


def test_a_checkpoint_restores_the_codes(fitted: tuple[CodebookModule, Trainer], tmp_path: Path) -> None:
    module, run = fitted
    run.save_checkpoint(tmp_path / "last.ckpt")
    again = make_module()
    (scores,) = trainer(tmp_path).test(again, loader(2), ckpt_path=str(tmp_path / "last.ckpt"), verbose=False)
    (expected,) = run.test(module, loader(2), verbose=False)
    assert scores == expected


def test_each_image_is_encoded_once_also_after_a_resume(tmp_path: Path) -> None:
    counts: list[int] = []

    class Counting(TinyImageTokenizer):
        def encode_pixels(self, pixels: Pixels) -> torch.Tensor:
            counts.append(len(pixels.values))
            return super().encode_pixels(pixels)

    def fit(num_steps: int, cache_gib: float, checkpoint: Path | None = None) -> tuple[CodebookModule, Trainer]:
        torch.manual_seed(0)
        learner = ResidualCodebookLearner(Counting(), codebook_size=4, num_levels=2, decay=0.8, cache_gib=cache_gib)
        module, run = CodebookModule(learner), trainer(tmp_path, num_steps)
        run.fit(module, loader(3), loader(1, seed=100), ckpt_path=checkpoint)
        return module, run

    each_time, _ = fit(9, cache_gib=0.0)
    assert sum(counts) == 16 * (9 + 3)
    counts.clear()
    once, _ = fit(9, cache_gib=1.0)
    assert sum(counts) == 16 * (3 + 1)
    _, run = fit(6, cache_gib=1.0)
    run.save_checkpoint(tmp_path / "last.ckpt")
    resumed, _ = fit(9, cache_gib=1.0, checkpoint=tmp_path / "last.ckpt")
    for name, expected in each_time.state_dict().items():
        assert torch.equal(once.state_dict()[name], expected), name
        assert torch.equal(resumed.state_dict()[name], expected), name


def test_tokens_are_refused() -> None:
    batch = ImageTextBatch(VQTokens(torch.zeros(1, 4, 1, dtype=torch.long), "x"), ("a",), (SampleInfo("0", "s"),))
    with pytest.raises(TypeError, match=r"CodebookModule.*VQTokens.*Pixels"):
        make_module().training_step(batch, 0)
