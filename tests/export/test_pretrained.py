import ast
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, GenerationConfig, pipeline

from synth2_lightning.decoders.causal import CausalDecoder
from synth2_lightning.export.captioner import load
from synth2_lightning.export.exported import load_exported
from synth2_lightning.export.folder import ARCHITECTURE
from synth2_lightning.export.pretrained import Synth2Config, Synth2ForConditionalGeneration
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler
from synth2_lightning.transformers import Synth2Processor
from synth2_lightning.types import Pixels

ExportTiny = Callable[..., Path]
CROSS_ATTENTION = {"cross_attn_every_n_layers": 1, "num_heads": 2, "head_dim": 8}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Return photos of several sizes and types, one of them as a file."""
    file = tmp_path_factory.mktemp("photos") / "red.png"
    Image.new("RGB", (200, 80), "red").save(file)
    ramp = torch.arange(3 * 64 * 90).view(3, 64, 90).remainder(256).byte()
    return [str(file), Image.linear_gradient("L"), Image.new("RGB", (33, 40), (0, 90, 255)), ramp]


@pytest.fixture(scope="module")
def folder(export_tiny: ExportTiny) -> Path:
    return export_tiny()


@pytest.fixture(scope="module")
def model(folder: Path) -> Synth2ForConditionalGeneration:
    loaded: Synth2ForConditionalGeneration = AutoModelForImageTextToText.from_pretrained(folder)
    return loaded


@pytest.fixture(scope="module")
def processor(folder: Path) -> Synth2Processor:
    loaded: Synth2Processor = AutoProcessor.from_pretrained(folder)
    return loaded


def _decoder(model: Synth2ForConditionalGeneration) -> CausalDecoder:
    assert isinstance(model.module.decoder, CausalDecoder)
    return model.module.decoder


def _decode(processor: Synth2Processor, ids: torch.Tensor) -> list[str]:
    return [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_captions_of_a_prefix_decoder_are_ours(
    folder: Path, model: Synth2ForConditionalGeneration, processor: Synth2Processor, photos: list[Any], num_beams: int
) -> None:
    expected = load(folder, "cpu", num_beams=num_beams).caption(photos)
    assert len(set(expected)) > 1
    assert _decode(processor, model.generate(**processor(images=photos), num_beams=num_beams)) == expected


def test_captions_of_a_cross_attention_decoder_with_a_prompt_are_ours(
    export_tiny: ExportTiny, photos: list[Any]
) -> None:
    folder = export_tiny("cross_attention.CrossAttentionDecoder", prompt="a red", **CROSS_ATTENTION)
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    for num_beams in (1, 3):
        expected = load(folder, "cpu", num_beams=num_beams).caption(photos)
        assert len(set(expected)) > 1
        assert _decode(processor, model.generate(**processor(images=photos), num_beams=num_beams)) == expected


def test_given_prompts_come_before_our_captions(
    model: Synth2ForConditionalGeneration, processor: Synth2Processor, photos: list[Any]
) -> None:
    prompts = ["two green circles", "", "a", "there is"]
    inputs = processor(images=photos, text=prompts)
    expected = model.module.generate(model.module.encode_images(Pixels(inputs["pixel_values"])), prompts)
    ids = model.generate(**inputs)
    assert _decode(processor, ids[:, inputs["input_ids"].shape[1] :]) == expected
    assert _decode(processor, ids) == [
        f"{prompt} {text}".strip() for prompt, text in zip(prompts, expected, strict=True)
    ]
    same = model.generate(**processor(images=photos, text="a"))
    assert torch.equal(same, model.generate(**processor(images=[[photo] for photo in photos], text=["a"] * 4)))
    with pytest.raises(ValueError, match=r"4 texts.*1 prompts"):
        processor(images=photos, text=["a"])


def test_pipelines_run_it(folder: Path, model: Synth2ForConditionalGeneration, processor: Synth2Processor) -> None:
    image = Image.linear_gradient("L")
    (answer,) = pipeline("image-text-to-text", model=str(folder))(images=image, text="a red", max_new_tokens=3)
    ids = model.generate(**processor(images=image, text="a red"), max_new_tokens=3)
    assert answer["generated_text"].split() == _decode(processor, ids)[0].split()
    assert 2 < len(answer["generated_text"].split()) <= 5


def test_settings_of_the_run_are_replaced_by_given_ones_and_others_refused(
    model: Synth2ForConditionalGeneration, processor: Synth2Processor, photos: list[Any]
) -> None:
    inputs = processor(images=photos)
    assert model.can_generate()
    assert model.generate(**inputs).shape[1] == 8
    config = GenerationConfig(max_new_tokens=3)
    assert model.generate(**inputs, generation_config=config).shape[1] == 3
    assert model.generate(**inputs, generation_config=config, max_new_tokens=4, use_cache=True).shape[1] == 4
    with pytest.raises(ValueError, match=r"min_length=2.*max_new_tokens"):
        model.generate(**inputs, min_length=2)
    with pytest.raises(ValueError, match=r"use_cache=False"):
        model.generate(**inputs, use_cache=False)


def test_the_loss_of_forward_is_the_decoders(
    model: Synth2ForConditionalGeneration, processor: Synth2Processor, photos: list[Any]
) -> None:
    texts = ["a red square", "two green circles and a star", "a ring", "nothing"]
    tokens = _decoder(model).caption_tokenizer.encode(texts, None)
    inputs = processor(images=photos)
    ids = torch.cat([tokens.inputs, tokens.targets[:, -1:]], dim=1)
    labels = torch.cat([tokens.inputs[:, :1], tokens.targets], dim=1)
    labels[:, 1:][~tokens.is_target] = -100
    output = model(**inputs, input_ids=ids, labels=labels)
    losses = _decoder(model).loss(model.module.encode_images(Pixels(inputs["pixel_values"])), texts)
    assert output.logits.shape == (4, ids.shape[1], len(processor.tokenizer))
    torch.testing.assert_close(output.loss, losses.sums.sum() / losses.counts.sum())
    with pytest.raises(ValueError, match=r"padded on the left"):
        model(**processor(images=photos, text=["a red", "a", "a", "a"]))


def test_one_folder_serves_both(folder: Path, model: Synth2ForConditionalGeneration, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == [ARCHITECTURE] == [type(model).__name__]
    assert isinstance(model.config, Synth2Config)
    assert model.config.model == config["model"]
    vocabulary = _decoder(model).source.tokenizer.get_vocab()
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == vocabulary
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert name in {path.name for path in folder.iterdir()}
    old = tmp_path / "captioner"  # as of a version without files for transformers
    shutil.copytree(folder, old, ignore=shutil.ignore_patterns("processor*", "tokenizer*"))
    (old / "config.json").write_text(json.dumps({name: config[name] for name in config if name != "model_type"}))
    assert torch.equal(
        load_exported(old).state_dict()["resampler.latents"], model.state_dict()["module.resampler.latents"]
    )


def test_what_a_folder_names_is_built_by_the_rules_of_exports(folder: Path, tmp_path: Path) -> None:
    hostile = shutil.copytree(folder, tmp_path / "captioner")
    config = json.loads((hostile / "config.json").read_text())
    config["model"]["init_args"]["decoder"] = {"class_path": "evil.Decoder"}
    (hostile / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"'evil\.Decoder'.*trust"):
        AutoModelForImageTextToText.from_pretrained(hostile, trust_remote_code=True)


def test_what_would_change_captions_is_refused(folder: Path, processor: Synth2Processor) -> None:
    with pytest.raises(ValueError, match=r"dtype.*\.to\(device\)"):
        AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"device_map.*\.to\(device\)"):
        AutoModelForImageTextToText.from_pretrained(folder, device_map="cpu")
    with pytest.raises(ValueError, match=r"do_resize.*preprocessing"):
        processor.image_processor(Image.new("RGB", (4, 4)), do_resize=False)
    with pytest.raises(ValueError, match=r"return_tensors='np'"):
        processor(images=Image.new("RGB", (4, 4)), return_tensors="np")


def test_the_example_of_the_document_on_sharing_captions_images(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = Path(__file__).parents[2] / "docs" / "sharing.md"
    example = re.findall(r"^```python\n(.*?)^```", document.read_text("utf-8"), re.MULTILINE | re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-captioner").symlink_to(folder)
    images = ("a.jpg", "b.png")
    for image in images:
        Image.new("RGB", (16, 12), "red").save(image)
    exec(example, {})
    captions = load(folder, "cpu", num_beams=3).caption(images)
    assert ast.literal_eval(capsys.readouterr().out.splitlines()[-1]) == captions


def test_a_saved_model_is_an_export_with_the_same_weights(
    model: Synth2ForConditionalGeneration, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "copy")
    copy = AutoModelForImageTextToText.from_pretrained(tmp_path / "copy")
    assert all(map(torch.equal, model.state_dict().values(), copy.state_dict().values()))
    assert isinstance(AutoProcessor.from_pretrained(tmp_path / "copy"), Synth2Processor)


def test_captioners_whose_texts_are_not_tokens_have_no_files_of_transformers(export_tiny: ExportTiny) -> None:
    folder = export_tiny(module="question_answering.QuestionAnsweringModule")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    with pytest.raises(ValueError, match=r"model_type"):
        AutoModelForImageTextToText.from_pretrained(folder)
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    with pytest.raises(ValueError, match=r"TinyDecoder.*synth2_lightning\.load"):
        Synth2ForConditionalGeneration(Synth2Config(), module)
