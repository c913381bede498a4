import shutil
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest
import torch
from diffusers import AmusedPipeline, AmusedScheduler, UVit2DModel, VQModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from synth2_lightning.encoders.vqgan import VQGANTokenizer
from synth2_lightning.generators.amused import AmusedGenerator
from synth2_lightning.testing import check_image_generator

CAPTIONS = ["a red dog", "two cats", "a red dog"]
SEEDS = [7, 8, 9]
LENGTH = 16


def make_text_parts() -> tuple[CLIPTokenizer, CLIPTextModelWithProjection]:
    """Return a tokenizer of letters, at most 14 of them, and a text encoder."""
    words = [*ascii_lowercase, *(f"{letter}</w>" for letter in ascii_lowercase), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: id_ for id_, word in enumerate(words)}, merges=[], model_max_length=LENGTH)
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        projection_dim=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return tokenizer, CLIPTextModelWithProjection(config)


def make_transformer() -> UVit2DModel:
    """Return a transformer over 4 by 4 tokens of 32 codes, whose logits depend on all inputs."""
    transformer = UVit2DModel(
        hidden_size=16,
        cond_embed_dim=8,
        micro_cond_encode_dim=4,
        micro_cond_embed_dim=20,
        encoder_hidden_size=16,
        vocab_size=40,
        codebook_size=32,
        in_channels=16,
        block_out_channels=16,
        num_res_blocks=1,
        block_num_heads=2,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        sample_size=4,
    )
    for parameter in transformer.parameters():
        nn.init.normal_(parameter, std=0.4)
    return transformer


@pytest.fixture(scope="module")
def pipeline() -> Any:
    torch.manual_seed(0)
    vqgan = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=6,
        num_vq_embeddings=32,
        lookup_from_codebook=True,
    )
    nn.init.normal_(vqgan.quantize.embedding.weight)
    tokenizer, text_encoder = make_text_parts()
    pipeline = AmusedPipeline(vqgan, tokenizer, text_encoder, make_transformer(), AmusedScheduler(mask_token_id=39))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def folder(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("amused")
    pipeline.save_pretrained(folder)
    return folder


def load_generator(folder: Path, **settings: Any) -> AmusedGenerator:
    generator = AmusedGenerator(str(folder), **{"num_steps": 5, **settings})
    generator.load()
    return generator


def load_tokenizer(folder: Path) -> VQGANTokenizer:
    tokenizer = VQGANTokenizer(str(folder), image_size=8, subfolder="vqvae", pixel_range=(0.0, 1.0))
    tokenizer.load()
    return tokenizer


def ask(pipeline: Any, captions: list[str], **settings: Any) -> Any:
    """Return the tokens that diffusers generates for each record alone."""
    records = zip(captions, SEEDS, strict=True)
    return torch.cat(
        [
            pipeline(
                caption,
                generator=torch.Generator().manual_seed(seed),
                **{"output_type": "latent", "num_inference_steps": 5, **settings},
            ).images
            for caption, seed in records
        ]
    )


def test_it_keeps_the_contract_of_image_generators(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    check_image_generator(AmusedGenerator(str(folder), num_steps=5), tokenizer)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"num_steps": 1}, {"num_inference_steps": 1}),
        ({"guidance_scale": 1.0}, {"guidance_scale": 1.0}),
        ({"guidance_scale": 2.5}, {"guidance_scale": 2.5}),
        ({"temperature": (9.0, 3.0)}, {"temperature": (9.0, 3.0)}),
        ({"negative_text": "blue"}, {"negative_prompt": "blue"}),
        ({"crop": (1, 2)}, {"micro_conditioning_crop_coord": (1, 2)}),
        ({"aesthetic_score": 2.0}, {"micro_conditioning_aesthetic_score": 2}),
    ],
)
def test_a_batch_has_the_tokens_that_diffusers_samples_one_by_one(
    pipeline: Any, folder: Path, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    tokens = load_generator(folder, **ours).generate(CAPTIONS, SEEDS)
    expected = ask(pipeline, CAPTIONS, **theirs)
    assert torch.equal(tokens.ids.view(3, 4, 4), expected)
    if ours:
        assert not torch.equal(expected, ask(pipeline, CAPTIONS))


def test_the_defaults_are_those_of_diffusers(pipeline: Any, folder: Path) -> None:
    generator = AmusedGenerator(str(folder))
    generator.load()
    expected = ask(pipeline, CAPTIONS, num_inference_steps=12)
    assert torch.equal(generator.generate(CAPTIONS, SEEDS).ids.view(3, 4, 4), expected)


def test_the_tokenizer_decodes_the_images_of_diffusers(pipeline: Any, folder: Path) -> None:
    images = load_tokenizer(folder).detokenize(load_generator(folder).generate(CAPTIONS, SEEDS)).values
    expected = ask(pipeline, CAPTIONS, output_type="pt") * 255
    assert images.shape == expected.shape
    assert (images - expected).abs().max() <= 1


def test_captions_steer(folder: Path) -> None:
    generator = load_generator(folder)
    first, second = generator.generate(["a red dog", "two cats"], [7, 7]).ids
    assert not torch.equal(first, second)


def test_the_fingerprint_is_that_of_the_tokenizer(folder: Path) -> None:
    generator = load_generator(folder)
    assert generator.codebook == load_tokenizer(folder).codebook == generator.generate(["a dog"], [0]).codebook
    assert load_generator(folder, name="amused").codebook == generator.codebook.replace("vqgan", "amused")


def test_micro_conditions_are_the_size_of_the_image_by_default(folder: Path) -> None:
    assert load_generator(folder).micro_conditions.tolist() == [8, 8, 0, 0, 6]
    generator = load_generator(folder, original_size=(640, 480), crop=(1, 2), aesthetic_score=5.5)
    assert generator.micro_conditions.tolist() == [640, 480, 1, 2, 5.5]


def test_nothing_is_read_before_loading_and_nothing_is_held_but_what_generates(folder: Path) -> None:
    assert AmusedGenerator("amused/amused-256").micro_conditions.tolist() == [0, 0, 0, 0, 6]
    generator = AmusedGenerator(str(folder))
    assert not list(generator.parameters())
    generator.load()
    assert not any(isinstance(module, VQModel) for module in generator.modules())
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    assert not any(module.training for module in generator.train().modules())


def test_a_batch_is_one_pass_a_step_and_text_is_encoded_once(folder: Path) -> None:
    generator = load_generator(folder)
    rows: dict[str, list[int]] = {"transformer": [], "text_encoder": []}
    generator.transformer.register_forward_pre_hook(lambda _, args: rows["transformer"].append(len(args[0])))
    generator.text_encoder.register_forward_pre_hook(lambda _, args: rows["text_encoder"].append(len(args[0])))
    generator.generate(CAPTIONS, SEEDS)
    assert rows == {"transformer": [6] * 5, "text_encoder": [3, 1]}


def test_weights_have_the_requested_precision(folder: Path) -> None:
    generator = load_generator(folder, dtype="bfloat16")
    assert {parameter.dtype for parameter in generator.parameters()} == {torch.bfloat16}
    assert generator.codebook == load_tokenizer(folder).codebook
    ids = generator.generate(CAPTIONS, SEEDS).ids
    assert 0 <= int(ids.min()) <= int(ids.max()) < 32


def test_long_captions_are_cut_and_counted(pipeline: Any, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    generator = load_generator(folder)
    captions = ["a red dog", "abcdefghijklmn", "abcdefghijklmno"]  # 14 letters fit
    tokens = generator.generate(captions, SEEDS)
    assert torch.equal(tokens.ids.view(3, 4, 4), ask(pipeline, captions))
    assert generator.num_truncated == 1
    assert "1 of 3 captions exceed the text encoder's context length of 16 tokens" in caplog.text
    assert "(1 so far), such as 'abcdefghijklmno'" in caplog.text
    generator.generate(captions[2:], SEEDS[2:])
    assert generator.num_truncated == 2


def test_a_folder_that_lacks_parts_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "transformer", tmp_path / "transformer")
    shutil.copytree(folder / "vqvae", tmp_path / "vqvae")
    with pytest.raises(FileNotFoundError, match=r"text_encoder, tokenizer, scheduler.*transformer, vqvae"):
        AmusedGenerator(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"aMUSEd model.*'\./nowhere'"):
        AmusedGenerator("./nowhere")


def test_empty_captions_and_missing_seeds_are_refused(folder: Path) -> None:
    generator = load_generator(folder)
    with pytest.raises(ValueError, match=r"1 of 2 captions.*empty"):
        generator.generate(["a dog", ""], [0, 1])
    with pytest.raises(ValueError, match=r"AmusedGenerator.* 2 captions.* 3 seeds"):
        generator.generate(["a dog", "a cat"], [0, 1, 2])


def test_several_captions_of_an_image_are_refused(folder: Path) -> None:
    generator = load_generator(folder)
    assert torch.equal(generator.generate([("a dog",)], [0]).ids, generator.generate(["a dog"], [0]).ids)
    with pytest.raises(ValueError, match=r"2 captions of one image.*'a dog'.*num_conditions"):
        generator.generate([("a dog", "a brown dog")], [0])


def test_generating_before_loading_is_refused(folder: Path) -> None:
    with pytest.raises(RuntimeError, match=r"load\(\)"):
        AmusedGenerator(str(folder)).generate(CAPTIONS, SEEDS)


def test_a_negative_text_that_is_too_long_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"negative_text.* 16 tokens.*'abcdefghijklmno'"):
        load_generator(folder, negative_text="abcdefghijklmno")


@pytest.mark.parametrize("settings", [{"num_steps": 0}, {"guidance_scale": 0.5}])
def test_steps_and_guidance_below_one_are_refused(folder: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"num_steps=.*guidance_scale="):
        AmusedGenerator(str(folder), **settings)
