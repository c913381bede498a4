import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from synth2_lightning.encoders.quantized import QuantizedEncoder, ResidualCodebookLearner
from synth2_lightning.interfaces import ImageEncoder
from synth2_lightning.testing import check_image_tokenizer
from synth2_lightning.types import Pixels, VQTokens


class PatchMeans(ImageEncoder):
    """Encoder with four tokens per image: the mean color of each quarter."""

    name, num_tokens, embed_dim, image_size = "patch-means", 4, 3, 8

    def encode_pixels(self, pixels: Pixels) -> Tensor:
        means = nn.functional.adaptive_avg_pool2d(pixels.values.float() / 255, 2)
        return means.flatten(2).transpose(1, 2)


def images(num: int, seed: int = 0) -> Pixels:
    """Return images of four uniform quarters, so that their features fill the color cube."""
    colors = torch.randint(0, 256, (num, 3, 2, 2), dtype=torch.uint8, generator=torch.manual_seed(seed))
    return Pixels(colors.repeat_interleave(4, 2).repeat_interleave(4, 3))


def learner(codebook_size: int = 8, num_levels: int = 3, num_steps: int = 1) -> ResidualCodebookLearner:
    codebook = ResidualCodebookLearner(PatchMeans(), codebook_size, num_levels, decay=0.8)
    codebook.load()
    for step in range(num_steps):
        codebook.quantize(images(64, seed=step))
    return codebook


def unexplained(codebook: ResidualCodebookLearner) -> float:
    """Return the fraction of the variance of held-out features that the codes do not explain."""
    quantization = codebook.eval().quantize(images(256, seed=99))
    centerd = quantization.features - quantization.features.mean((0, 1))
    return float((quantization.features - quantization.quantized).square().sum() / centerd.square().sum())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    learner(num_steps=4).export(tmp_path / "codebook")
    return tmp_path / "codebook"


def loaded(folder: Path, num_levels: int | None = None, quantize_pixels: bool = True) -> QuantizedEncoder:
    encoder = QuantizedEncoder(PatchMeans(), str(folder), num_levels, quantize_pixels)
    encoder.load()
    return encoder


def test_first_batch_starts_the_codes_where_the_features_are() -> None:
    assert unexplained(learner(num_levels=1)) < 0.4


def test_steps_improve_the_codes() -> None:
    assert unexplained(learner(codebook_size=32, num_steps=30)) < 0.9 * unexplained(learner(codebook_size=32))


def test_levels_quantise_what_is_left() -> None:
    left = [unexplained(learner(num_levels=levels, num_steps=4)) for levels in (1, 2, 3)]
    assert left[0] > 2 * left[1] > 4 * left[2]


def test_unused_codes_start_again() -> None:
    codebook = ResidualCodebookLearner(PatchMeans(), codebook_size=8, num_levels=1, decay=0.5, revival_threshold=0.5)
    codebook.load()
    black = Pixels(torch.zeros(64, 3, 8, 8, dtype=torch.uint8))
    codebook.quantize(black)
    for seed in range(8):
        codebook.quantize(images(64, seed))
    assert set(codebook.eval().quantize(images(256)).ids.flatten().tolist()) == set(range(8))


@pytest.mark.parametrize("setting", [{"codebook_size": 0}, {"num_levels": 0}, {"decay": 1.0}, {"decay": -0.1}])
def test_settings_that_train_no_codebook_are_refused(setting: dict[str, Any]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=rf"{name}={value}.*below 1"):
        ResidualCodebookLearner(PatchMeans(), **setting)


def test_evaluation_moves_no_code() -> None:
    codebook = learner().eval()
    before = {name: tensor.clone() for name, tensor in codebook.state_dict().items()}
    codebook.quantize(images(64, seed=5))
    assert all(torch.equal(before[name], tensor) for name, tensor in codebook.state_dict().items())


def test_learning_resumes_from_its_state() -> None:
    first = learner(num_steps=3)
    second = ResidualCodebookLearner(PatchMeans(), 8, 3, decay=0.8)
    second.load()
    second.load_state_dict(first.state_dict())
    a, b = (codebook.quantize(images(64, seed=7)) for codebook in (first, second))
    assert torch.equal(a.ids, b.ids)
    assert unexplained(first) == unexplained(second)


def test_autocast_does_not_round_distances() -> None:
    codebook = learner(codebook_size=32).eval()
    exact = codebook.quantize(images(64)).ids
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codebook.quantize(images(64)).ids, exact)


def test_exported_codebook_quantizes_as_the_learner_does(tmp_path: Path) -> None:
    codebook = learner(num_steps=3).eval()
    codebook.export(tmp_path)
    encoder = loaded(tmp_path)
    expected = codebook.quantize(images(64, seed=5))
    assert torch.equal(encoder.tokenize(images(64, seed=5)).ids, expected.ids)
    torch.testing.assert_close(encoder.encode_pixels(images(64, seed=5)), expected.quantized)


def test_an_export_records_its_content(folder: Path) -> None:
    config = json.loads((folder / "codebook.json").read_text())
    assert config == {"encoder": "patch-means", "codebook_size": 8, "num_levels": 3}
    assert load_file(folder / "codebook.safetensors")["codes"].shape == (3, 8, 3)


def test_it_keeps_the_contract_of_image_tokenizers(folder: Path) -> None:
    check_image_tokenizer(QuantizedEncoder(PatchMeans(), str(folder)), image_size=20)
    check_image_tokenizer(QuantizedEncoder(PatchMeans(), str(folder), quantize_pixels=False), quantizes_pixels=False)


def test_widths_are_known_before_the_codes(folder: Path) -> None:
    encoder = QuantizedEncoder(PatchMeans(), str(folder))
    assert (encoder.num_tokens, encoder.embed_dim, encoder.image_size) == (4, 3, 8)
    assert (encoder.codebook_size, encoder.num_levels, encoder.codebook) == (8, 3, "")


def test_each_level_takes_the_nearest_code(folder: Path) -> None:
    encoder = loaded(folder)
    residual = PatchMeans().encode_pixels(images(16))
    ids = encoder.tokenize(images(16)).ids
    for level, codes in enumerate(encoder.codes):
        assert torch.equal(ids[..., level], torch.cdist(residual, codes[None]).argmin(-1))
        residual = residual - codes[ids[..., level]]


def test_photos_may_stay_continuous(folder: Path) -> None:
    encoder = loaded(folder, quantize_pixels=False)
    torch.testing.assert_close(encoder(images(4)), PatchMeans()(images(4)))
    # The embeddings of tokens are near the features that they replace.
    assert (encoder(encoder.tokenize(images(4))) - encoder(images(4))).abs().mean() < 0.1


def test_fewer_levels_are_the_first_ones(folder: Path) -> None:
    whole, coarse = loaded(folder), loaded(folder, num_levels=1)
    assert torch.equal(coarse.tokenize(images(8)).ids, whole.tokenize(images(8)).ids[..., :1])
    assert coarse.codebook != whole.codebook


def test_fingerprint_names_encoder_size_levels_and_content(folder: Path) -> None:
    before = loaded(folder).codebook
    assert before.startswith("patch-means-8x3:")
    assert len(before.rpartition(":")[2]) == 8
    save_file({"codes": torch.ones(3, 8, 3)}, folder / "codebook.safetensors")
    assert loaded(folder).codebook != before


def test_codebook_of_another_encoder_is_refused(folder: Path) -> None:
    (folder / "codebook.json").write_text('{"encoder": "vit", "codebook_size": 8, "num_levels": 3}')
    with pytest.raises(ValueError, match=r"'vit'.*'patch-means'"):
        QuantizedEncoder(PatchMeans(), str(folder))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [({"code": (3, 8, 3)}, r"'code': \(3, 8, 3\)"), ({"codes": (1, 8, 3)}, r"'codes': \(1, 8, 3\)")],
)
def test_codes_of_other_shapes_are_refused(folder: Path, tensors: dict[str, tuple[int, ...]], message: str) -> None:
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, folder / "codebook.safetensors")
    with pytest.raises(ValueError, match=rf"{message}.*expected {{'codes': \(3, 8, 3\)}}"):
        loaded(folder)


def test_a_codebook_without_codes_is_refused(folder: Path) -> None:
    (folder / "codebook.json").write_text('{"encoder": "patch-means", "codebook_size": -1, "num_levels": 3}')
    with pytest.raises(ValueError, match="codebook_size=-1"):
        QuantizedEncoder(PatchMeans(), str(folder))


@pytest.mark.parametrize("num_levels", [0, 4])
def test_levels_that_are_not_there_are_refused(folder: Path, num_levels: int) -> None:
    with pytest.raises(ValueError, match=rf"num_levels={num_levels}\b.* 1 to 3"):
        QuantizedEncoder(PatchMeans(), str(folder), num_levels)


def test_missing_codebook_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="codebook"):
        QuantizedEncoder(PatchMeans(), str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="codebook's description"):
        QuantizedEncoder(PatchMeans(), str(tmp_path))


def test_tokens_of_other_levels_are_refused(folder: Path) -> None:
    encoder = loaded(folder)
    with pytest.raises(ValueError, match=r" 2 levels.*'patch-means-8x3:.*' has 3"):
        encoder(VQTokens(torch.zeros(1, 4, 2, dtype=torch.long), encoder.codebook))


def test_foreign_and_impossible_tokens_are_refused(folder: Path) -> None:
    encoder = loaded(folder)
    with pytest.raises(ValueError, match="codebook 'vqgan-512:1f3c9a02'"):
        encoder(VQTokens(torch.zeros(1, 4, 3, dtype=torch.long), "vqgan-512:1f3c9a02"))
    with pytest.raises(ValueError, match="ids from 8 to 8"):
        encoder(VQTokens(torch.full((1, 4, 3), 8), encoder.codebook))


def test_use_before_load_is_refused(folder: Path) -> None:
    encoder = QuantizedEncoder(PatchMeans(), str(folder))
    for image in (images(1), VQTokens(torch.zeros(1, 4, 3, dtype=torch.long), "")):
        with pytest.raises(RuntimeError, match=r"'patch-means'.*load\(\)"):
            encoder(image)
    with pytest.raises(RuntimeError, match=r"codebook.*load\(\)"):
        ResidualCodebookLearner(PatchMeans()).quantize(images(1))


def test_held_out_images_never_start_the_codes(tmp_path: Path) -> None:
    codebook = learner(num_steps=0)
    with pytest.raises(ValueError, match=r"codebook.*training mode"):
        codebook.eval().quantize(images(64))
    with pytest.raises(RuntimeError, match=r"codebook.*train.*export"):
        codebook.export(tmp_path)


RANK_SCRIPT = """
import sys, torch
from pathlib import Path
from synth2_lightning.encoders.quantized import ResidualCodebookLearner
from synth2_lightning.testing import TinyImageTokenizer, tiny_batch
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
torch.manual_seed(rank)
codebook = ResidualCodebookLearner(TinyImageTokenizer(), codebook_size=8, num_levels=2)
codebook.load()
for step in range(3):
    codebook.quantize(tiny_batch(16, seed=10 * step + rank).image)
codebook.export(folder / str(rank))
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_ranks_agree_on_the_codes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RANK_SCRIPT]
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in (0, 1)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    a, b = (load_file(tmp_path / str(rank) / "codebook.safetensors")["codes"] for rank in (0, 1))
    assert torch.equal(a, b)
