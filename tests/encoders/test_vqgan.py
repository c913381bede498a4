import json
from pathlib import Path

import pytest
import torch
from diffusers import VQModel
from torchvision.transforms.functional import pil_to_tensor

from synth2_lightning.encoders.vqgan import TrainableVQGAN, VQGANTokenizer
from synth2_lightning.scenes.source import ScenesSource
from synth2_lightning.testing import check_image_tokenizer
from synth2_lightning.types import Pixels, VQTokens

SHIPPED = "package://synth2_lightning/scenes/tokenizer"


def save_model(folder: Path, **settings: object) -> VQModel:
    """Save and return a model of 4 by 4 tokens for 16 by 16 pixels, whose codes are far apart."""
    torch.manual_seed(0)
    model = VQModel(
        **{
            "sample_size": 16,
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
            "block_out_channels": (8, 8, 8),
            "norm_num_groups": 4,
            "latent_channels": 6,
            "num_vq_embeddings": 32,
            **settings,
        }
    )
    torch.nn.init.normal_(model.quantize.embedding.weight)
    model.save_pretrained(folder)
    return model.eval()


def random_pixels(size: int = 16, num_images: int = 3) -> Pixels:
    values = torch.randint(0, 256, (num_images, 3, size, size), generator=torch.Generator().manual_seed(0))
    return Pixels(values.to(torch.uint8))


@pytest.fixture
def tokenizer(tmp_path: Path) -> VQGANTokenizer:
    save_model(tmp_path)
    tokenizer = VQGANTokenizer(str(tmp_path))
    tokenizer.load()
    return tokenizer


def test_it_keeps_the_contract_of_image_tokenizers(tmp_path: Path) -> None:
    save_model(tmp_path)
    check_image_tokenizer(VQGANTokenizer(str(tmp_path)))


def test_widths_are_known_before_weights_are_read(tmp_path: Path) -> None:
    save_model(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    tokenizer = VQGANTokenizer(str(tmp_path))
    assert (tokenizer.num_tokens, tokenizer.embed_dim, tokenizer.codebook_size) == (16, 6, 32)
    assert (tokenizer.image_size, tokenizer.num_levels) == (16, 1)
    assert sum(parameter.numel() for parameter in tokenizer.parameters()) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lookup_from_codebook": True},
        {"vq_embed_dim": 4},
        {"norm_type": "spatial", "block_out_channels": (32, 32, 32), "latent_channels": 32},
    ],
)
def test_ids_vectors_and_images_are_those_of_diffusers(tmp_path: Path, settings: dict[str, object]) -> None:
    model = save_model(tmp_path, **settings)
    tokenizer = VQGANTokenizer(str(tmp_path))
    tokenizer.load()
    pixels = random_pixels()
    with torch.no_grad():
        latents = model.encode(pixels.values / 127.5 - 1).latents
        codes, _, (_, _, ids) = model.quantize(latents)
        decoded = model.decode(latents).sample
    tokens = tokenizer.tokenize(pixels)
    assert torch.equal(tokens.ids.flatten(), ids)
    torch.testing.assert_close(tokenizer(tokens), codes.flatten(2).mT)
    expected = ((decoded + 1) * 127.5).round().clamp(0, 255)
    assert (tokenizer.detokenize(tokens).values - expected).abs().max() <= 1


def test_the_pixel_range_is_an_argument(tmp_path: Path) -> None:
    model = save_model(tmp_path)
    tokenizer = VQGANTokenizer(str(tmp_path), pixel_range=(0.0, 1.0))
    tokenizer.load()
    pixels = random_pixels()
    with torch.no_grad():
        latents = model.encode(pixels.values / 255).latents
        decoded = model.decode(latents).sample
    tokens = tokenizer.tokenize(pixels)
    assert torch.equal(tokens.ids.flatten(), model.quantize(latents)[2][2])
    expected = (decoded * 255).round().clamp(0, 255)
    assert (tokenizer.detokenize(tokens).values - expected).abs().max() <= 1


def test_a_subfolder_is_read(tmp_path: Path) -> None:
    save_model(tmp_path / "vqvae")
    tokenizer = VQGANTokenizer(str(tmp_path), subfolder="vqvae")
    tokenizer.load()
    assert tokenizer.tokenize(random_pixels()).ids.shape == (3, 16, 1)


def test_the_fingerprint_is_of_the_codebook_alone(tmp_path: Path) -> None:
    model = save_model(tmp_path)
    fingerprints = []
    for step in range(3):
        if step == 1:
            model.decoder.conv_in.bias.data += 1
        if step == 2:
            model.quantize.embedding.weight.data[0, 0] += 1
        model.save_pretrained(tmp_path)
        tokenizer = VQGANTokenizer(str(tmp_path), name="tiny")
        tokenizer.load()
        fingerprints.append(tokenizer.codebook)
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert fingerprints[0].startswith("tiny-32:")
    assert len(fingerprints[0]) == len("tiny-32:") + 8


def test_half_precision_weights_come_as_single_precision(tmp_path: Path) -> None:
    save_model(tmp_path).half().save_pretrained(tmp_path)
    tokenizer = VQGANTokenizer(str(tmp_path))
    tokenizer.load()
    assert {parameter.dtype for parameter in tokenizer.parameters()} == {torch.float32}


def test_images_of_another_size_are_resized(tokenizer: VQGANTokenizer) -> None:
    small = random_pixels()
    large = Pixels(small.values.repeat_interleave(4, 2).repeat_interleave(4, 3))
    assert tokenizer.tokenize(large).ids.shape == (3, 16, 1)
    same = tokenizer.tokenize(large).ids == tokenizer.tokenize(small).ids
    assert same.float().mean() > 0.5


def test_the_image_size_is_an_argument(tmp_path: Path) -> None:
    save_model(tmp_path)
    assert VQGANTokenizer(str(tmp_path), image_size=32).num_tokens == 64


@pytest.mark.parametrize("code", [-1, 32])
def test_ids_outside_of_the_codebook_are_refused(tokenizer: VQGANTokenizer, code: int) -> None:
    ids = torch.full((1, 16, 1), code)
    with pytest.raises(ValueError, match=f"ids from {code} to {code}.*codebook.* 0 to 31"):
        tokenizer(VQTokens(ids, tokenizer.codebook))


def test_foreign_codebooks_are_refused(tokenizer: VQGANTokenizer) -> None:
    ids = torch.zeros(1, 16, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="codebook 'other-32:0'"):
        tokenizer.detokenize(VQTokens(ids, "other-32:0"))


def test_tokens_of_several_levels_are_refused(tokenizer: VQGANTokenizer) -> None:
    with pytest.raises(ValueError, match=r" 2 levels.*'vqgan'"):
        tokenizer(VQTokens(torch.zeros(1, 16, 2, dtype=torch.long), tokenizer.codebook))


def test_images_that_are_not_square_are_not_decoded(tokenizer: VQGANTokenizer) -> None:
    with pytest.raises(ValueError, match=r" 15 tokens.*square"):
        tokenizer.detokenize(VQTokens(torch.zeros(1, 15, 1, dtype=torch.long), tokenizer.codebook))


def test_a_missing_codebook_is_named(tmp_path: Path) -> None:
    save_model(tmp_path)
    with pytest.raises(RuntimeError, match=r"call load\(\)"):
        VQGANTokenizer(str(tmp_path)).tokenize(random_pixels())


def test_an_incomplete_description_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["num_vq_embeddings"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json.*num_vq_embeddings=None.*whole number"):
        VQGANTokenizer(str(tmp_path))


def test_a_pixel_range_without_pixels_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    with pytest.raises(ValueError, match=r"pixel_range=\(0\.0, 0\.0\)"):
        VQGANTokenizer(str(tmp_path), pixel_range=(0.0, 0.0))


def test_sizes_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    with pytest.raises(ValueError, match=r"image_size=18 .* 4 pixels.*multiple of 4"):
        VQGANTokenizer(str(tmp_path), image_size=18)
    with pytest.raises(ValueError, match=r"image_size=18 .* 8 pixels.*multiple of 8"):
        TrainableVQGAN(image_size=18)


def test_a_name_in_the_form_of_a_path_is_not_requested_from_the_hub() -> None:
    with pytest.raises(FileNotFoundError, match="VQ-GAN"):
        VQGANTokenizer("./nowhere")


def test_an_exported_training_is_the_frozen_tokenizer(tmp_path: Path) -> None:
    trained = TrainableVQGAN(16, codebook_size=8, embed_dim=4, block_out_channels=(8, 8), norm_num_groups=4)
    pixels = random_pixels()
    trained.reconstruct(pixels)
    trained.eval()
    with torch.no_grad():
        reconstruction = trained.reconstruct(pixels)
    trained.export(tmp_path / "tokenizer")
    frozen = VQGANTokenizer(str(tmp_path / "tokenizer"))
    frozen.load()
    tokens = frozen.tokenize(pixels)
    assert torch.equal(tokens.ids, reconstruction.ids)
    expected = ((reconstruction.pixels + 1) * 127.5).round().clamp(0, 255)
    assert (frozen.detokenize(tokens).values - expected).abs().max() <= 1


def test_a_codebook_that_never_started_is_not_written(tmp_path: Path) -> None:
    trained = TrainableVQGAN(16, 8, embed_dim=4, block_out_channels=(8, 8), norm_num_groups=4, num_free_batches=5)
    trained.reconstruct(random_pixels())
    with pytest.warns(UserWarning, match=r" 1 training batches.*num_free_batches=5"):
        trained.export(tmp_path / "tokenizer")
    assert not (tmp_path / "tokenizer").exists()


def test_a_reconstruction_teaches_encoder_and_decoder() -> None:
    trained = TrainableVQGAN(16, codebook_size=8, embed_dim=4, block_out_channels=(8, 8), norm_num_groups=4)
    reconstruction = trained.reconstruct(random_pixels(size=20))
    assert reconstruction.target.shape == (3, 3, 16, 16)
    assert float(reconstruction.target.min()) >= -1
    assert float(reconstruction.target.max()) <= 1
    difference = reconstruction.pixels - reconstruction.target
    torch.autograd.backward(difference.square().mean())
    learning = {name.split(".")[1] for name, weight in trained.named_parameters() if weight.grad is not None}
    assert learning == {"encoder", "quant_conv", "post_quant_conv", "decoder"}


def test_the_shipped_tokenizer_keeps_the_contract() -> None:
    check_image_tokenizer(VQGANTokenizer(SHIPPED))


def test_a_swapped_pixel_range_is_another_codebook() -> None:
    fingerprints = set()
    for settings in ({}, {"pixel_range": (0.0, 1.0)}, {"image_size": 128}):
        tokenizer = VQGANTokenizer(SHIPPED, **settings)
        tokenizer.load()
        fingerprints.add(tokenizer.codebook)
    assert len(fingerprints) == 3


def test_features_are_not_rounded_before_they_are_quantized() -> None:
    tokenizer = VQGANTokenizer(SHIPPED)
    tokenizer.load()
    source = ScenesSource("val", 16)
    pixels = Pixels(torch.stack([pil_to_tensor(source.image(index)) for index in range(16)]))
    expected, embeddings = tokenizer.tokenize(pixels).ids, tokenizer.encode_pixels(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        assert tokenizer.tokenize(pixels).ids.equal(expected)
        assert tokenizer.encode_pixels(pixels).equal(embeddings)
